//! Which sign is which series, with a figure or two, in rows below a chart.

use super::plot::{ROW, SMALL};
use crate::area::Area;
use crate::canvas::{Canvas, Stroke, Type};
use crate::text::width;
use crate::theme::Colour;

/// What stands below a chart about its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legend {
    /// Nothing.
    None,
    /// Their names.
    Names,
    /// Their names, the last value and the greatest.
    Values,
}

/// One series: its colour, whether it is drawn filled, its name and its figures.
pub(super) struct Entry {
    pub colour: Colour,
    pub filled: bool,
    pub name: String,
    pub figures: String,
}

/// Room for the sign before a name.
const SIGN: f64 = 24.0;
/// Room between two entries.
const APART: f64 = 18.0;
/// No entry is wider.
const WIDEST: f64 = 420.0;

impl Entry {
    fn width(&self, room: f64) -> f64 {
        let figures = match self.figures.as_str() {
            "" => 0.0,
            figures => width(figures, SMALL) + 8.0,
        };
        (SIGN + width(&self.name, SMALL) + figures).min(WIDEST).min(room)
    }
}

/// In which row each entry stands and where it begins.
fn place(entries: &[Entry], room: f64) -> Vec<(usize, f64)> {
    let (mut row, mut x) = (0, 0.0);
    entries
        .iter()
        .map(|entry| {
            let wide = entry.width(room);
            if x > 0.0 && x + wide > room {
                (row, x) = (row + 1, 0.0);
            }
            let at = (row, x);
            x += wide + APART;
            at
        })
        .collect()
}

/// How much height a legend takes of what there is at most.
pub(super) fn height(entries: &[Entry], room: f64, most: f64) -> f64 {
    let rows = place(entries, room).last().map_or(0, |(row, _)| row + 1);
    let most = (most / ROW).floor().max(1.0);
    (rows as f64).min(most) * ROW
}

/// Draws as many entries as there is room for, and says how many there are besides.
pub(super) fn draw(canvas: &mut Canvas, area: Area, entries: &[Entry], more: usize) {
    let most = (area.height / ROW).floor() as usize;
    let places = place(entries, area.width);
    let fits = |(row, x): (usize, f64)| row < most && (row + 1 < most || x + 90.0 < area.width || x == 0.0);
    let mut shown = places.iter().take_while(|place| fits(**place)).count();
    let words = |shown: usize| format!("and {} more", entries.len() - shown + more);
    let hides = |shown: usize| entries.len() - shown + more > 0;
    // The last one gives its place to the words about the others.
    let crowded = |shown: usize| {
        let (row, x) = places[shown - 1];
        let end = x + entries[shown - 1].width(area.width) + APART;
        row + 1 >= most && end + width(&words(shown), SMALL) > area.width
    };
    while shown > 1 && hides(shown) && crowded(shown) {
        shown -= 1;
    }
    let full = hides(shown) && shown > 0;
    let mut after = (0, 0.0);
    for (entry, (row, x)) in entries.iter().zip(&places).take(shown) {
        let wide = entry.width(area.width);
        after = (*row, x + wide + APART);
        let (left, y) = (area.x + x, area.y + *row as f64 * ROW + 12.0);
        if entry.filled {
            canvas.rect(Area::new(left, y - 9.0, 16.0, 10.0), entry.colour, 2.0, "");
        } else {
            let sign = vec![(left, y - 4.0), (left + 18.0, y - 4.0)];
            canvas.lines(&[sign], Stroke::new(entry.colour, 2.0), "");
        }
        let figures = width(&entry.figures, SMALL);
        let room = wide - SIGN - if figures > 0.0 { figures + 8.0 } else { 0.0 };
        canvas.text((left + SIGN, y), Type::new(SMALL, Colour::Ink).room(room), &entry.name);
        if figures > 0.0 {
            let name = width(&entry.name, SMALL).min(room);
            let kind = Type::new(SMALL, Colour::Soft).room(figures);
            canvas.text((left + SIGN + name + 8.0, y), kind, &entry.figures);
        }
    }
    if full {
        let words = words(shown);
        let (row, x) = if after.1 + width(&words, SMALL) > area.width && after.0 + 1 < most {
            (after.0 + 1, 0.0)
        } else {
            after
        };
        let at = (
            area.x + x.min((area.width - width(&words, SMALL)).max(0.0)),
            area.y + row as f64 * ROW + 12.0,
        );
        canvas.text(at, Type::new(SMALL, Colour::Soft), &words);
    }
}
