//! What charts over an axis share: the frame with its ticks, moments, thresholds and shaded stretches.

use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Stroke, Type};
use crate::scale::{self, Scale};
use crate::text::width;
use crate::theme::{Colour, Tone};

/// What the horizontal axis counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// Seconds since 1970, shown as the clock says them in UTC.
    Clock,
    /// Plain numbers of a unit.
    Number(String),
}

/// A moment on the horizontal axis, with a few words.
#[derive(Debug, Clone)]
pub struct Mark {
    /// When.
    pub x: f64,
    /// What.
    pub label: String,
    /// What it means.
    pub tone: Tone,
}

impl Mark {
    /// A moment with a few words.
    pub fn new(x: f64, label: &str, tone: Tone) -> Self {
        Self {
            x,
            label: label.to_owned(),
            tone,
        }
    }
}

/// A value that matters, as a horizontal line.
#[derive(Debug, Clone)]
pub struct Threshold {
    /// The value.
    pub value: f64,
    /// A few words, or none.
    pub label: String,
    /// What it means to be there.
    pub tone: Tone,
}

/// Size of the words on axes.
pub(super) const SMALL: f64 = 11.0;
/// Height of a row of words.
pub(super) const ROW: f64 = 16.0;
/// More marks than these would hide what is below them.
pub(super) const MARKS: usize = 50;

/// Where things are drawn: an area and the way into it.
#[derive(Debug)]
pub(super) struct Plot {
    pub area: Area,
    pub x: Scale,
    pub y: Scale,
}

impl Plot {
    /// The place of a point.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.at(x), self.y.at(y))
    }
}

/// The room to the left that ticks need.
pub(super) fn gutter(ticks: &[(f64, String)], most: f64) -> f64 {
    let widest = ticks.iter().map(|(_, text)| width(text, SMALL)).fold(0.0, f64::max);
    (widest + 8.0).min(most)
}

/// Lines across, each with its value to the left.
pub(super) fn values(canvas: &mut Canvas, plot: &Plot, ticks: &[(f64, String)]) {
    let area = plot.area;
    let mut free = f64::INFINITY;
    for (value, text) in ticks {
        let y = plot.y.at(*value);
        canvas.line((area.x, y), (area.right(), y), Stroke::new(Colour::Line, 1.0));
        // Words that would run into those below are left out.
        if y + SMALL <= free {
            let kind = Type::new(SMALL, Colour::Soft).anchor(Anchor::End);
            canvas.text((area.x - 6.0, y + 4.0), kind, text);
            free = y;
        }
    }
}

/// The axis below an area with its ticks. It needs [`ROW`] and 8 more below the area.
pub(super) fn below(canvas: &mut Canvas, area: Area, x: &Scale, (from, to): (f64, f64), axis: &Axis) {
    let line = Stroke::new(Colour::Soft, 1.0);
    let bottom = area.bottom();
    canvas.line((area.x, bottom), (area.right(), bottom), line);
    let (ticks, unit) = match axis {
        Axis::Clock => (scale::moments(from, to, (area.width / 80.0) as usize), ""),
        Axis::Number(unit) => {
            let unit_of_ticks = crate::Unit::named("none");
            let ticks = unit_of_ticks.ticks(from, to, (area.width / 80.0).max(1.0) as usize);
            (ticks, unit.as_str())
        }
    };
    let room = area.right() - width(unit, SMALL) - 10.0;
    let mut free = f64::NEG_INFINITY;
    for (value, text) in ticks.iter().filter(|tick| (from..=to).contains(&tick.0)) {
        let at = x.at(*value);
        canvas.line((at, bottom), (at, bottom + 4.0), line);
        let half = width(text, SMALL) / 2.0;
        // What would reach over an end is pushed back.
        let middle = at.min(area.right() - half).max(area.x + half - 20.0);
        if middle - half > free && (unit.is_empty() || middle + half <= room) {
            let kind = Type::new(SMALL, Colour::Soft).anchor(Anchor::Middle);
            canvas.text((middle, bottom + ROW), kind, text);
            free = middle + half + 6.0;
        }
    }
    if !unit.is_empty() {
        let kind = Type::new(SMALL, Colour::Soft)
            .anchor(Anchor::End)
            .room(area.width / 2.0);
        canvas.text((area.right(), bottom + ROW), kind, unit);
    }
}

/// Shaded stretches.
pub(super) fn bands(canvas: &mut Canvas, plot: &Plot, bands: &[(f64, f64)]) {
    for (from, to) in bands.iter().take(MARKS) {
        let (left, right) = (plot.x.at(*from), plot.x.at(*to));
        let area = Area::new(left, plot.area.y, right - left, plot.area.height);
        canvas.rect(area, Colour::Band, 0.0, "");
    }
}

/// Values that matter; their words stand above what is drawn.
pub(super) fn thresholds(canvas: &mut Canvas, plot: &Plot, thresholds: &[Threshold], (low, high): (f64, f64)) {
    for threshold in thresholds.iter().take(MARKS) {
        if !(low..=high).contains(&threshold.value) {
            continue;
        }
        let y = plot.y.at(threshold.value);
        let colour = Colour::Of(threshold.tone);
        let (from, to) = ((plot.area.x, y), (plot.area.right(), y));
        canvas.line(from, to, Stroke::new(colour, 1.5).dash("3 3"));
        let kind = Type::new(SMALL, colour).bold().rim().room(plot.area.width - 8.0);
        canvas.text(
            (plot.area.x + 4.0, (y - 5.0).max(plot.area.y + 9.0)),
            kind,
            &threshold.label,
        );
    }
}

/// The row of words above the plot for each mark, so that they do not run into each other, and how many rows there are.
/// A row is missing where all `most` are full.
pub(super) fn rows(marks: &[Mark], x: &Scale, area: Area, most: usize) -> (Vec<Option<usize>>, usize) {
    let mut ends: Vec<Vec<(f64, f64)>> = Vec::new();
    let rows = marks
        .iter()
        .take(MARKS)
        .map(|mark| {
            let (from, to) = span(mark, x, area);
            let free = |row: &Vec<(f64, f64)>| row.iter().all(|(a, b)| to + 6.0 < *a || from - 6.0 > *b);
            let row = ends.iter().position(free).unwrap_or(ends.len());
            if row == most {
                return None;
            }
            if row == ends.len() {
                ends.push(Vec::new());
            }
            ends[row].push((from, to));
            Some(row)
        })
        .collect();
    (rows, ends.len())
}

/// From where to where the words of a mark reach.
fn span(mark: &Mark, x: &Scale, area: Area) -> (f64, f64) {
    let at = x.at(mark.x);
    let width = width(&mark.label, SMALL) * 1.08 + 4.0;
    if at + width <= area.right() || at - area.x < area.right() - at {
        (at, (at + width).min(area.right()))
    } else {
        ((at - width).max(area.x), at)
    }
}

/// The marks: a line down from its row, and its words beside the line.
pub(super) fn marks(canvas: &mut Canvas, plot: &Plot, marks: &[Mark], rows: &[Option<usize>], count: usize) {
    for (mark, row) in marks.iter().zip(rows) {
        let x = plot.x.at(mark.x);
        let colour = Colour::Of(mark.tone);
        let top = plot.area.y - ROW * (count - row.unwrap_or(count)) as f64;
        let line = Stroke::new(colour, 1.5).dash("3 3");
        canvas.line((x, top), (x, plot.area.bottom()), line);
        if row.is_some() {
            let (from, to) = span(mark, &plot.x, plot.area);
            let (anchor, at) = if from < x {
                (Anchor::End, to - 4.0)
            } else {
                (Anchor::Start, from + 4.0)
            };
            let kind = Type::new(SMALL, colour).bold().anchor(anchor).room(to - from);
            canvas.text((at, top + 10.0), kind, &mark.label);
        }
    }
}
