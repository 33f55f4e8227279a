//! Gauges: where a value stands between two ends, on an arc with the stretches that thresholds make.

use std::f64::consts::PI;

use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Type};
use crate::theme::Colour;

/// One gauge.
#[derive(Debug, Clone)]
pub struct Gauge {
    /// What it is.
    pub label: String,
    /// Where it stands, from 0 to 1; what is not finite is not drawn.
    pub part: f64,
    /// Its value in words.
    pub text: String,
    /// Its colour.
    pub colour: Colour,
    /// From where on the scale, from 0 to 1, which colour begins.
    pub steps: Vec<(f64, Colour)>,
}

/// Gauges beside each other.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// From left to right.
    pub gauges: Vec<Gauge>,
}

/// More would be too small to be read.
pub(super) const MOST: usize = 24;

/// An area cut into cells for `count` things that like to be `shape` times as wide as high.
pub(super) fn cells(area: Area, count: usize, shape: f64) -> Vec<Area> {
    let count = count.max(1);
    let size = |columns: usize| {
        let rows = count.div_ceil(columns);
        let (wide, high) = (area.width / columns as f64, area.height / rows as f64);
        wide.min(high * shape)
    };
    let columns = (1..=count)
        .max_by(|a, b| size(*a).total_cmp(&size(*b)).then(b.cmp(a)))
        .unwrap_or(1);
    let rows = count.div_ceil(columns);
    let (wide, high) = (area.width / columns as f64, area.height / rows as f64);
    (0..count)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            Area::new(area.x + column as f64 * wide, area.y + row as f64 * high, wide, high)
        })
        .collect()
}

/// A stretch of a ring around a middle, as corners: from and to are parts of three quarters of a turn.
fn ring((x, y): (f64, f64), (outer, inner): (f64, f64), (from, to): (f64, f64)) -> Vec<(f64, f64)> {
    let steps = (((to - from) * 48.0).ceil() as usize).clamp(1, 48);
    let angle = |index: usize| {
        let part = from + (to - from) * index as f64 / steps as f64;
        PI * (0.75 + 1.5 * part)
    };
    let point = |radius: f64, index: usize| (x + radius * angle(index).cos(), y + radius * angle(index).sin());
    let out = (0..=steps).map(|index| point(outer, index));
    let back = (0..=steps).rev().map(|index| point(inner, index));
    out.chain(back).collect()
}

impl Chart for Gauges {
    fn describe(&self) -> String {
        if self.gauges.is_empty() {
            return NO_DATA.to_owned();
        }
        let words = self
            .gauges
            .iter()
            .take(12)
            .map(|gauge| format!("{}: {}.", gauge.label, gauge.text));
        words.collect::<Vec<_>>().join(" ")
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        if self.gauges.is_empty() {
            return nothing(canvas, area, NO_DATA);
        }
        let shown = &self.gauges[..self.gauges.len().min(MOST)];
        for (gauge, cell) in shown.iter().zip(cells(area, shown.len(), 1.25)) {
            let named = if gauge.label.is_empty() { 0.0 } else { 16.0 };
            // Three quarters of a circle are lower than a whole one.
            let whole = ((cell.height - named - 4.0) / 1.75)
                .min(cell.width / 2.0 - 4.0)
                .max(4.0);
            // Outside of the arc stand its stretches.
            let outer = whole / 1.08;
            let inner = outer * 0.76;
            let middle = (
                cell.middle().0,
                cell.y + whole + 2.0 + (cell.height - named - whole * 1.75).max(0.0) / 2.0,
            );
            canvas.shapes(&[ring(middle, (outer, inner), (0.0, 1.0))], Colour::Line, 1.0, "");
            let part = if gauge.part.is_finite() {
                gauge.part.clamp(0.0, 1.0)
            } else {
                0.0
            };
            if part > 0.0 {
                let words = format!("{}: {}", gauge.label, gauge.text);
                canvas.shapes(&[ring(middle, (outer, inner), (0.0, part))], gauge.colour, 1.0, &words);
            }
            let rim = (outer + outer * 0.07, outer + outer * 0.02);
            for (index, (from, colour)) in gauge.steps.iter().enumerate().take(12) {
                let to = gauge.steps.get(index + 1).map_or(1.0, |next| next.0);
                let (from, to) = (from.clamp(0.0, 1.0), to.clamp(0.0, 1.0));
                if to > from {
                    canvas.shapes(&[ring(middle, rim, (from, to))], *colour, 1.0, "");
                }
            }
            let size = super::numbers::size_for(&gauge.text, inner * 1.6, inner * 0.5);
            let kind = Type::new(size, Colour::Ink)
                .anchor(Anchor::Middle)
                .bold()
                .room(inner * 1.9);
            canvas.text((middle.0, middle.1 + size * 0.35), kind, &gauge.text);
            let name = Type::new(12.0, Colour::Soft)
                .anchor(Anchor::Middle)
                .room(cell.width - 8.0);
            canvas.text((middle.0, cell.bottom() - 4.0), name, &gauge.label);
        }
    }
}
