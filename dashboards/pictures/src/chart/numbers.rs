//! Large numbers with a name and the way that they came: what is to be read from afar.

use super::gauges::{MOST, cells};
use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Stroke, Type};
use crate::scale::{self, Scale, tame};
use crate::text::width;
use crate::theme::Colour;
use crate::thin::stretches;

/// One number.
#[derive(Debug, Clone)]
pub struct Number {
    /// What it is; may be empty.
    pub label: String,
    /// It, with its unit.
    pub text: String,
    /// The colour that thresholds give it.
    pub colour: Colour,
    /// The way that it came; may be empty.
    pub way: Vec<(f64, f64)>,
}

/// Numbers beside each other.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// In reading order.
    pub numbers: Vec<Number>,
}

/// The size in which a text fills a room, within what can be read.
pub(super) fn size_for(text: &str, room: f64, most: f64) -> f64 {
    let one = width(text, 1.08).max(0.1);
    (room / one).min(most).clamp(9.0, 64.0)
}

impl Chart for Numbers {
    fn describe(&self) -> String {
        if self.numbers.is_empty() {
            return NO_DATA.to_owned();
        }
        let words = self.numbers.iter().take(12).map(|number| match number.label.as_str() {
            "" => format!("{}.", number.text),
            label => format!("{label}: {}.", number.text),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        if self.numbers.is_empty() {
            return nothing(canvas, area, NO_DATA);
        }
        let shown = &self.numbers[..self.numbers.len().min(MOST)];
        for (number, cell) in shown.iter().zip(cells(area, shown.len(), 2.4)) {
            one(canvas, number, cell.inset(4.0, 2.0, 4.0, 2.0), shown.len() > 1);
        }
    }
}

fn one(canvas: &mut Canvas, number: &Number, cell: Area, several: bool) {
    let named = if several && !number.label.is_empty() && cell.height > 34.0 {
        16.0
    } else {
        0.0
    };
    let sparked = number.way.len() > 1 && cell.height > 70.0;
    let upper = if sparked { cell.height * 0.62 } else { cell.height };
    let size = size_for(&number.text, cell.width - 8.0, (upper - named) * 0.62);
    let (x, _) = cell.middle();
    if sparked {
        let place = Area::new(cell.x, cell.y + upper, cell.width, cell.height - upper);
        spark(canvas, number, place);
    }
    let y = cell.y + named + (upper - named) / 2.0 + size * 0.36;
    let kind = Type::new(size, number.colour)
        .anchor(Anchor::Middle)
        .bold()
        .room(cell.width);
    canvas.text((x, y), kind, &number.text);
    if named > 0.0 {
        let kind = Type::new(12.0, Colour::Soft).anchor(Anchor::Middle).room(cell.width);
        canvas.text((x, cell.y + 13.0), kind, &number.label);
    }
}

fn spark(canvas: &mut Canvas, number: &Number, area: Area) {
    let points = || number.way.iter().filter(|point| point.0.is_finite());
    let (Some(span), Some(values)) = (
        scale::range(points().map(|point| point.0)),
        scale::range(points().map(|point| point.1)),
    ) else {
        return;
    };
    let values = if values.0 > 0.0 && values.0 < values.1 * 0.5 {
        (0.0, values.1)
    } else {
        values
    };
    let x = Scale::new(scale::spread(span), (area.x, area.right()));
    let y = Scale::new(scale::spread(values), (area.bottom() - 1.0, area.y + 2.0));
    let place = |at: f64, value: f64| (x.at(at), y.at(value));
    let lines = stretches(points().map(|point| (point.0, tame(point.1))), f64::INFINITY, place);
    let shapes: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .filter_map(|line| {
            let (first, last) = (line.first()?, line.last()?);
            let ends = [(last.0, area.bottom()), (first.0, area.bottom())];
            Some(line.iter().copied().chain(ends).collect())
        })
        .collect();
    let colour = match number.colour {
        Colour::Ink => Colour::Series(0),
        colour => colour,
    };
    canvas.shapes(&shapes, colour, 0.15, "");
    let mut stroke = Stroke::new(colour, 1.5);
    stroke.dash = None;
    canvas.lines(&lines, stroke, "");
}
