//! A small writer of SVG: stacked panels over one axis, legible on light and on dark pages, nothing told by colour alone.
//! It knows nothing of policies.

use std::fmt::Write as _;

/// What a mark means; the same in every picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// What the picture is about.
    Main,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Waits, or is extra.
    Wait,
    /// For comparison.
    Quiet,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Wait => "wait",
            Self::Quiet => "quiet",
        }
    }

    /// The same without a pattern, to write on.
    const fn solid(self) -> &'static str {
        match self {
            Self::Bad => "hatch",
            _ => self.class(),
        }
    }
}

/// A picture: a title, what it shows in words, and panels from top to bottom.
#[derive(Debug)]
pub struct Picture {
    pub title: &'static str,
    pub description: &'static str,
    /// Name and unit of the horizontal axis.
    pub axis: &'static str,
    /// Its ends.
    pub span: (f64, f64),
    pub panels: Vec<Panel>,
}

/// One panel.
#[derive(Debug)]
pub enum Panel {
    Chart {
        /// Name and unit of the vertical axis.
        axis: &'static str,
        /// Its ends.
        span: (f64, f64),
        height: f64,
        marks: Vec<Mark>,
    },
    Rows(Vec<Row>),
}

/// Something in a chart.
#[derive(Debug)]
pub enum Mark {
    /// Points that are joined, but for those that are not numbers.
    Line(&'static str, Tone, Vec<(f64, f64)>),
    /// Bars of one width that begin at x, each kind on top of the one before.
    Bars {
        width: f64,
        kinds: Vec<(&'static str, Tone)>,
        bars: Vec<(f64, Vec<f64>)>,
    },
    /// A height with its name.
    Level(&'static str, f64),
}

/// A row of spans.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub spans: Vec<Span>,
}

/// From when to when something was so.
#[derive(Debug)]
pub struct Span {
    pub from: f64,
    pub to: f64,
    pub tone: Tone,
    pub text: &'static str,
}

const WIDTH: f64 = 640.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 14.0;
/// Where the first panel begins, below title and legend.
const TOP: f64 = 54.0;
const ROW: f64 = 20.0;
const GAP: f64 = 16.0;
/// Pixels that a letter takes at most.
const LETTER: f64 = 5.9;

const STYLE: &str = "\
:root{--page:#fff;--ink:#1f2328;--faint:#59636e;--grid:#d8dee4;--main:#0969da;--good:#1a7f37;--bad:#cf222e;--wait:#9a6700;--quiet:#818b98}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#e6edf3;--faint:#9198a1;--grid:#30363d;--main:#58a6ff;--good:#3fb950;--bad:#ff7b72;--wait:#d29922;--quiet:#6e7681}}
text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:var(--ink)}
.title{font-size:13px;font-weight:600}.faint{fill:var(--faint)}.in{fill:var(--page);font-weight:600}
.page{fill:var(--page)}.grid{stroke:var(--grid);stroke-width:1}.level{stroke:var(--faint);stroke-width:1;stroke-dasharray:2 3}
path{fill:none;stroke-width:2;stroke-linejoin:round}
path.main{stroke:var(--main)}path.good{stroke:var(--good);stroke-dasharray:7 2}path.bad{stroke:var(--bad);stroke-dasharray:4 3}
path.wait{stroke:var(--wait);stroke-dasharray:8 3 2 3}path.quiet{stroke:var(--quiet);stroke-dasharray:2 3}
rect.main{fill:var(--main)}rect.good{fill:var(--good)}rect.wait{fill:var(--wait)}rect.quiet{fill:var(--quiet)}rect.bad{fill:url(#hatch)}
.hatch{fill:var(--bad)}.hatching{stroke:var(--page);stroke-width:1.2;fill:none}
";

impl Picture {
    /// The whole file.
    pub fn svg(&self) -> String {
        let bottom = TOP + self.panels.iter().map(|panel| panel.height() + GAP).sum::<f64>();
        let height = bottom + 24.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-labelledby=\"title description\">\n<title id=\"title\">{}</title>\n\
             <desc id=\"description\">{}</desc>\n<style>\n{STYLE}</style>\n<defs><pattern id=\"hatch\" width=\"5\" \
             height=\"5\" patternUnits=\"userSpaceOnUse\"><rect class=\"hatch\" width=\"5\" height=\"5\"/><path \
             class=\"hatching\" d=\"M-1 6L6 -1\"/></pattern></defs>\n<rect class=\"page\" width=\"{WIDTH}\" \
             height=\"{height}\" rx=\"6\"/>\n",
            self.title, self.description
        );
        text(&mut out, 12.0, 19.0, "title", "start", self.title);
        self.legend(&mut out);
        let mut top = TOP;
        for panel in &self.panels {
            panel.draw(&mut out, top, self);
            top += panel.height() + GAP;
        }
        for tick in ticks(self.span, 10) {
            text(&mut out, self.x(tick), bottom - 2.0, "faint", "middle", &number(tick));
        }
        text(&mut out, WIDTH - RIGHT, bottom + 14.0, "faint", "end", self.axis);
        out.push_str("</svg>\n");
        out
    }

    fn x(&self, value: f64) -> f64 {
        let (from, to) = self.span;
        LEFT + (value.clamp(from, to) - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    }

    fn legend(&self, out: &mut String) {
        let mut left = 12.0;
        for panel in &self.panels {
            let marks = match panel {
                Panel::Chart { marks, .. } => marks,
                Panel::Rows(rows) => {
                    left = self.legend_of_rows(out, left, rows);
                    continue;
                }
            };
            for mark in marks {
                match mark {
                    Mark::Line(name, tone, _) => {
                        let _ = writeln!(out, "<path class=\"{}\" d=\"M{left:.1} 34h18\"/>", tone.class());
                        left = labelled(out, left, name);
                    }
                    Mark::Bars { kinds, .. } => {
                        for (name, tone) in kinds {
                            rect(out, tone.class(), (left + 6.0, 29.0), (10.0, 10.0));
                            left = labelled(out, left, name);
                        }
                    }
                    Mark::Level(..) => {}
                }
            }
        }
    }

    /// The spans that are too narrow for their text.
    fn legend_of_rows(&self, out: &mut String, mut left: f64, rows: &[Row]) -> f64 {
        let mut told = Vec::new();
        for span in rows.iter().flat_map(|row| &row.spans) {
            if !self.fits(span) && !told.contains(&span.text) {
                told.push(span.text);
                rect(out, span.tone.solid(), (left + 6.0, 29.0), (10.0, 10.0));
                left = labelled(out, left, span.text);
            }
        }
        left
    }

    /// Whether the text of a span stands in it.
    fn fits(&self, span: &Span) -> bool {
        self.x(span.to) - self.x(span.from) > span.text.chars().count() as f64 * LETTER + 6.0
    }
}

/// The name behind a sign in the legend; returns where the next one begins.
fn labelled(out: &mut String, left: f64, name: &str) -> f64 {
    text(out, left + 22.0, 38.0, "", "start", name);
    left + 22.0 + name.chars().count() as f64 * LETTER + 16.0
}

impl Panel {
    fn height(&self) -> f64 {
        match self {
            Self::Chart { height, .. } => *height,
            Self::Rows(rows) => rows.len() as f64 * ROW,
        }
    }

    fn draw(&self, out: &mut String, top: f64, picture: &Picture) {
        match self {
            Self::Chart {
                axis,
                span,
                height,
                marks,
            } => chart(out, (top, *height), (axis, *span), marks, picture),
            Self::Rows(rows) => {
                for (index, row) in rows.iter().enumerate() {
                    draw_row(out, top + index as f64 * ROW, row, picture);
                }
            }
        }
    }
}

fn chart(out: &mut String, place: (f64, f64), axis: (&str, (f64, f64)), marks: &[Mark], picture: &Picture) {
    let ((top, height), (name, (low, high))) = (place, axis);
    let y = |value: f64| top + height - (value.clamp(low, high) - low) / (high - low) * height;
    let (left, right) = (LEFT, WIDTH - RIGHT);
    for tick in ticks((low, high), 4) {
        let at = y(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>");
        text(out, left - 6.0, at + 4.0, "faint", "end", &number(tick));
    }
    let middle = top + height / 2.0;
    let _ = writeln!(
        out,
        "<text class=\"faint\" text-anchor=\"middle\" transform=\"translate(16 {middle:.1})rotate(-90)\">{name}</text>"
    );
    for mark in marks {
        match mark {
            Mark::Bars { width, kinds, bars } => {
                for (from, parts) in bars {
                    let mut base = 0.0;
                    let (from, to) = (picture.x(*from), picture.x(from + width));
                    for ((_, tone), part) in kinds.iter().zip(parts) {
                        let (lower, upper) = (y(base), y(base + part));
                        base += part;
                        rect(out, tone.class(), (from + 0.5, upper), (to - from - 1.0, lower - upper));
                    }
                }
            }
            Mark::Line(_, tone, points) => {
                let mut way = String::new();
                let mut letter = 'M';
                for (at, value) in points {
                    if value.is_nan() {
                        letter = 'M';
                        continue;
                    }
                    let _ = write!(way, "{letter}{:.1} {:.1}", picture.x(*at), y(*value));
                    letter = 'L';
                }
                let _ = writeln!(out, "<path class=\"{}\" d=\"{way}\"/>", tone.class());
            }
            Mark::Level(name, value) => {
                let at = y(*value);
                let _ = writeln!(out, "<path class=\"level\" d=\"M{left} {at:.1}H{right}\"/>");
                text(out, right - 2.0, at - 3.0, "faint", "end", name);
            }
        }
    }
}

fn draw_row(out: &mut String, top: f64, row: &Row, picture: &Picture) {
    text(out, LEFT - 6.0, top + 13.0, "faint", "end", row.name);
    for span in &row.spans {
        let (from, to) = (picture.x(span.from), picture.x(span.to));
        let width = (to - from - 0.6).max(1.5);
        rect(out, span.tone.solid(), (from, top), (width, ROW - 3.0));
        if picture.fits(span) {
            text(out, from + width / 2.0, top + 12.5, "in", "middle", span.text);
        }
    }
}

fn rect(out: &mut String, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
    if height > 0.05 {
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

/// Round values over a span, at most so many steps.
fn ticks((from, to): (f64, f64), most: u32) -> Vec<f64> {
    let rough = (to - from) / f64::from(most);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough - 1e-9)
        .unwrap_or(rough);
    let first = (from / step).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
