//! Horizontal bars from zero: a few things beside each other, the name on the left, the value behind the bar.

use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Type};
use crate::text::width;
use crate::theme::Colour;

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// Its length; what is not finite or below zero has none.
    pub value: f64,
    /// Its value in words.
    pub text: String,
    /// Its colour.
    pub colour: Colour,
}

/// Bars.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// From top to bottom.
    pub bars: Vec<Bar>,
    /// What the whole width stands for; absent: the longest bar.
    pub full: Option<f64>,
}

const SIZE: f64 = 12.0;
const THIN: f64 = 20.0;
const THICK: f64 = 26.0;

impl Bars {
    /// The height that shows all of them.
    pub fn height(&self) -> f64 {
        self.bars.len().max(2) as f64 * THICK + 8.0
    }
}

impl Chart for Bars {
    fn describe(&self) -> String {
        if self.bars.is_empty() {
            return NO_DATA.to_owned();
        }
        let words = self
            .bars
            .iter()
            .take(12)
            .map(|bar| format!("{}: {}.", bar.label, bar.text));
        words.collect::<Vec<_>>().join(" ")
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        if self.bars.is_empty() {
            return nothing(canvas, area, NO_DATA);
        }
        let count = self.bars.len();
        let mut fitting = (area.height / THIN).floor().max(1.0) as usize;
        if count > fitting {
            // The last row says how many there are besides.
            fitting = (fitting - 1).max(1);
        }
        let shown = &self.bars[..count.min(fitting)];
        let step = (area.height / shown.len() as f64).clamp(THIN, THICK);
        let widest = |text: fn(&Bar) -> &str| shown.iter().map(|bar| width(text(bar), SIZE)).fold(0.0, f64::max);
        let left = (widest(|bar| &bar.label) + 10.0).min(area.width * 0.42);
        let right = (widest(|bar| &bar.text) + 10.0).min(area.width * 0.45);
        let room = (area.width - left - right).max(10.0);
        let length = |bar: &Bar| if bar.value.is_finite() { bar.value.max(0.0) } else { 0.0 };
        let longest = self.full.filter(|full| full.is_finite() && *full > 0.0);
        let longest = longest
            .unwrap_or_else(|| shown.iter().map(length).fold(0.0, f64::max))
            .max(1e-300);
        for (index, bar) in shown.iter().enumerate() {
            let top = area.y + index as f64 * step;
            let base = top + step / 2.0 + 4.0;
            let long = ((length(bar) / longest).min(1.0) * room).max(1.0);
            let name = Type::new(SIZE, Colour::Ink).anchor(Anchor::End).room(left - 8.0);
            canvas.text((area.x + left - 8.0, base), name, &bar.label);
            let place = Area::new(area.x + left, top + 3.0, long, step - 6.0);
            canvas.rect(place, bar.colour, 2.0, &format!("{}: {}", bar.label, bar.text));
            let value = Type::new(SIZE, Colour::Ink).room(area.right() - place.right() - 7.0);
            canvas.text((place.right() + 7.0, base), value, &bar.text);
        }
        if count > shown.len() {
            let words = format!("and {} more", count - shown.len());
            let kind = Type::new(11.0, Colour::Soft);
            canvas.text((area.x, area.bottom() - 3.0), kind, &words);
        }
    }
}
