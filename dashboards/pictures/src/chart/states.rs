//! States over time: a row for each thing, a bar for each stretch in which it was in one state.

use super::plot::{self, Axis, ROW, SMALL};
use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Type};
use crate::scale::{self, Scale};
use crate::text::width;
use crate::theme::Colour;

/// From when to when something was so.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its begin, in seconds since 1970.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// How it was, in words.
    pub text: String,
    /// In which colour.
    pub colour: Colour,
}

/// States over time.
#[derive(Debug, Clone, Default)]
pub struct States {
    /// From top to bottom: name and stretches in order.
    pub rows: Vec<(String, Vec<Span>)>,
    /// The ends of time; absent: those of the stretches.
    pub span: Option<(f64, f64)>,
}

/// No row is lower.
const LOW: f64 = 18.0;

impl Chart for States {
    fn describe(&self) -> String {
        let words: Vec<String> = self
            .rows
            .iter()
            .take(12)
            .filter_map(|(name, spans)| Some(format!("{name}: {} states, now {}.", spans.len(), spans.last()?.text)))
            .collect();
        if words.is_empty() {
            NO_DATA.to_owned()
        } else {
            words.join(" ")
        }
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        let spans = || self.rows.iter().flat_map(|row| &row.1);
        let Some(span) = self
            .span
            .or_else(|| scale::range(spans().flat_map(|span| [span.from, span.to])))
        else {
            return nothing(canvas, area, NO_DATA);
        };
        if spans().next().is_none() {
            return nothing(canvas, area, NO_DATA);
        }
        let span = scale::spread(span);
        let names: Vec<(f64, String)> = self.rows.iter().map(|row| (0.0, row.0.clone())).collect();
        let left = plot::gutter(&names, area.width * 0.35);
        let inner = area.inset(left, 4.0, 8.0, ROW * 2.0 + 8.0);
        let x = Scale::new(span, (inner.x, inner.right()));
        let fitting = (inner.height / LOW).floor().max(1.0) as usize;
        let shown = self.rows.len().min(fitting);
        let high = inner.height / shown as f64;
        for (index, (name, spans)) in self.rows.iter().take(shown).enumerate() {
            let top = inner.y + index as f64 * high;
            let kind = Type::new(SMALL, Colour::Ink).anchor(Anchor::End).room(left - 6.0);
            canvas.text((inner.x - 6.0, top + high / 2.0 + 4.0), kind, name);
            let mut column = f64::NEG_INFINITY;
            for span in merged(spans) {
                let (from, to) = (x.at(span.from), x.at(span.to));
                // Of what shares a column of pixels the first is seen.
                if to.floor() <= column {
                    continue;
                }
                column = to.floor();
                let wide = (to - from - 0.6).max(0.8);
                let thick = (high - 4.0).min(32.0);
                let place = Area::new(from, top + (high - thick) / 2.0, wide, thick);
                let told = if wide > 3.0 { span.text.as_str() } else { "" };
                canvas.rect(place, span.colour, 1.0, told);
                if width(&span.text, SMALL) * 1.08 + 8.0 < wide {
                    let kind = Type::new(SMALL, Colour::Paper).bold().anchor(Anchor::Middle);
                    let (middle, y) = place.middle();
                    canvas.text((middle, y + 4.0), kind, &span.text);
                }
            }
        }
        plot::below(canvas, inner, &x, span, &Axis::Clock);
        self.legend(canvas, area, shown);
    }
}

/// Stretches of one state that touch each other are one.
fn merged(spans: &[Span]) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.text == span.text && last.colour == span.colour && span.from <= last.to => {
                last.to = last.to.max(span.to);
            }
            _ => merged.push(span.clone()),
        }
    }
    merged
}

impl States {
    /// Each state once, and how many rows there are besides.
    fn legend(&self, canvas: &mut Canvas, area: Area, shown: usize) {
        let mut told: Vec<&str> = Vec::new();
        let mut at = area.x;
        let y = area.bottom() - 2.0;
        for span in self.rows.iter().take(shown).flat_map(|row| &row.1) {
            let wide = width(&span.text, SMALL) + 32.0;
            if told.contains(&span.text.as_str()) || told.len() >= 24 || at + wide > area.right() - 90.0 {
                continue;
            }
            told.push(&span.text);
            canvas.rect(Area::new(at, y - 9.0, 10.0, 10.0), span.colour, 1.0, "");
            canvas.text((at + 15.0, y), Type::new(SMALL, Colour::Ink), &span.text);
            at += wide;
        }
        if shown < self.rows.len() {
            let words = format!("and {} more rows", self.rows.len() - shown);
            canvas.text(
                (area.right(), y),
                Type::new(SMALL, Colour::Soft).anchor(Anchor::End),
                &words,
            );
        }
    }
}
