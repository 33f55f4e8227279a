//! Pictures of figures as inline SVG: lines over time, bars, the evidence of a canary. Colours and fonts come from the
//! page's style ([`super::html`]); nothing here is told by colour alone. It computes no figure.

use std::fmt::Write as _;

use super::html::escape;

/// A finished picture: safe to put into a page as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// The element as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a line or word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    Plain,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Something else.
    Other,
}

impl Tone {
    /// Its class in the page's style.
    pub fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Other => "other",
        }
    }

    /// How its line is drawn, so that it can be told apart without colour.
    fn dash(self) -> &'static str {
        match self {
            Self::Plain | Self::Good => "",
            Self::Bad => " dash",
            Self::Other => " dots",
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// What it means.
    pub tone: Tone,
    /// Points with rising x. Those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A line.
    pub fn new(name: &str, tone: Tone, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            tone,
            points,
        }
    }
}

/// A moment on the time axis.
#[derive(Debug, Clone)]
pub struct Marker {
    x: f64,
    label: String,
    tone: Tone,
}

impl Marker {
    /// A moment with a few words.
    pub fn new(x: f64, label: &str, tone: Tone) -> Self {
        Self {
            x,
            label: label.to_owned(),
            tone,
        }
    }
}

/// Lines over time.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// What it shows; read aloud, not drawn.
    pub title: String,
    /// Unit of the x axis.
    pub x_label: String,
    /// Unit of the y axis.
    pub y_label: String,
    /// The lines; drawn in this order.
    pub series: Vec<Series>,
    /// Moments, as vertical lines with words above.
    pub markers: Vec<Marker>,
    /// Shaded stretches of the x axis: from, to.
    pub bands: Vec<(f64, f64)>,
    /// Horizontal lines with words: value, words, meaning.
    pub thresholds: Vec<(f64, String, Tone)>,
    /// Lowest value that is drawn; lower ones are drawn on it.
    pub y_low: f64,
    /// Highest value that is drawn; absent: as high as the points and thresholds.
    pub y_high: Option<f64>,
    /// Steps instead of slopes between points.
    pub stepped: bool,
    /// Height of the drawing; the width is 720.
    pub height: f64,
}

impl Default for LineChart {
    fn default() -> Self {
        Self {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            series: Vec::new(),
            markers: Vec::new(),
            bands: Vec::new(),
            thresholds: Vec::new(),
            y_low: 0.0,
            y_high: None,
            stepped: false,
            height: 260.0,
        }
    }
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 36.0;
/// Height of a row of words.
const ROW: f64 = 17.0;
/// About the width of a letter.
const LETTER: f64 = 6.6;

impl LineChart {
    /// Draws it. Without points it says that there are none.
    pub fn render(&self) -> Svg {
        let points = || {
            self.series
                .iter()
                .flat_map(|series| series.points.iter())
                .filter(|p| finite(**p))
        };
        if points().next().is_none() {
            return empty(&self.title);
        }
        let x_low = points().map(|p| p.0).fold(f64::MAX, f64::min).min(0.0);
        let x_high = points().map(|p| p.0).fold(f64::MIN, f64::max).max(x_low + 1e-9);
        let top_value = self.y_high.unwrap_or_else(|| {
            let limits = self.thresholds.iter().map(|t| t.0);
            points().map(|p| p.1).chain(limits).fold(self.y_low, f64::max)
        });
        let y_ticks = ticks(
            self.y_low,
            top_value.max(self.y_low + 1e-9),
            if self.height < 180.0 { 3 } else { 5 },
        );
        let y_high = y_ticks.last().copied().unwrap_or(1.0).max(top_value);
        let rows = self.place_markers(x_low, x_high);
        let top = ROW * 1.4 + ROW * rows.iter().map(|row| row + 1).max().unwrap_or(0) as f64;
        let height = self.height.max(top + BOTTOM + 60.0);
        let frame = Frame {
            x: (x_low, x_high),
            y: (self.y_low, y_high),
            top,
            bottom: height - BOTTOM,
        };
        let mut out = open(&self.title, height);
        for (from, to) in &self.bands {
            let (a, b) = (frame.x(from.max(x_low)), frame.x(to.min(x_high)));
            let _ = write!(
                out,
                "<rect class=\"band\" x=\"{a:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (b - a).max(0.0),
                frame.bottom - top
            );
        }
        frame.axes(&mut out, &y_ticks, &self.x_label, &self.y_label);
        for (value, words, tone) in &self.thresholds {
            let y = frame.y(*value);
            let _ = write!(
                out,
                "<g class=\"{}\"><line class=\"mark\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"start\">{}</text></g>",
                tone.class(),
                WIDTH - RIGHT,
                LEFT + 4.0,
                y - 5.0,
                escape(words)
            );
        }
        for series in &self.series {
            self.line(&mut out, &frame, series);
        }
        for (marker, row) in self.markers.iter().zip(&rows) {
            frame.marker(&mut out, marker, *row);
        }
        legend(&mut out, &self.series, &self.y_label);
        out.push_str("</svg>");
        Svg(out)
    }

    fn line(&self, out: &mut String, frame: &Frame, series: &Series) {
        let mut path = String::new();
        let mut count = 0;
        for point in series.points.iter().filter(|p| finite(**p)) {
            let (x, y) = (frame.x(point.0), frame.y(point.1));
            let _ = match (count, self.stepped) {
                (0, _) => write!(path, "M{x:.1} {y:.1}"),
                (_, true) => write!(path, "H{x:.1}V{y:.1}"),
                (_, false) => write!(path, "L{x:.1} {y:.1}"),
            };
            count += 1;
        }
        let class = series.tone.class();
        match (count, series.points.first()) {
            (0, _) | (_, None) => {}
            (1, Some(point)) => {
                let (x, y) = (frame.x(point.0), frame.y(point.1));
                let _ = write!(
                    out,
                    "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                );
            }
            _ => {
                let _ = write!(
                    out,
                    "<path class=\"curve {class}{}\" d=\"{path}\"/>",
                    series.tone.dash()
                );
            }
        }
    }

    /// The row of words above the plot for each marker, so that they do not run into each other.
    fn place_markers(&self, x_low: f64, x_high: f64) -> Vec<usize> {
        let frame = Frame {
            x: (x_low, x_high),
            y: (0.0, 1.0),
            top: 0.0,
            bottom: 1.0,
        };
        let mut ends: Vec<Vec<(f64, f64)>> = Vec::new();
        self.markers
            .iter()
            .map(|marker| {
                let (from, to) = span(&frame, marker);
                let free = |row: &Vec<(f64, f64)>| row.iter().all(|(a, b)| to + 6.0 < *a || from - 6.0 > *b);
                let row = ends.iter().position(free).unwrap_or(ends.len());
                if row == ends.len() {
                    ends.push(Vec::new());
                }
                ends[row].push((from, to));
                row
            })
            .collect()
    }
}

/// From where to where the words of a marker reach.
fn span(frame: &Frame, marker: &Marker) -> (f64, f64) {
    let x = frame.x(marker.x);
    let width = marker.label.chars().count() as f64 * LETTER + 4.0;
    if x + width > WIDTH - RIGHT {
        ((x - width).max(0.0), x)
    } else {
        (x, x + width)
    }
}

struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    top: f64,
    bottom: f64,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        let part = ((value - self.x.0) / (self.x.1 - self.x.0)).clamp(0.0, 1.0);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = ((value - self.y.0) / (self.y.1 - self.y.0)).clamp(0.0, 1.0);
        self.bottom - part * (self.bottom - self.top)
    }

    fn axes(&self, out: &mut String, y_ticks: &[f64], x_label: &str, y_label: &str) {
        let (right, bottom) = (WIDTH - RIGHT, self.bottom);
        for tick in y_ticks {
            let y = self.y(*tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                number(*tick)
            );
        }
        let x_ticks = ticks(self.x.0, self.x.1, 8);
        for tick in x_ticks.iter().filter(|tick| **tick <= self.x.1 + 1e-9) {
            let x = self.x(*tick);
            let _ = write!(
                out,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 4.0,
                bottom + 17.0,
                number(*tick)
            );
        }
        let _ = write!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"unit\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text class=\"unit\" x=\"4\" y=\"14\">{}</text>",
            bottom + 32.0,
            escape(x_label),
            escape(y_label)
        );
    }

    fn marker(&self, out: &mut String, marker: &Marker, row: usize) {
        let x = self.x(marker.x);
        let (from, to) = span(self, marker);
        let y = ROW * 1.4 + ROW * row as f64 + 10.0;
        let (anchor, at) = if from < x {
            ("end", to - 4.0)
        } else {
            ("start", from + 4.0)
        };
        let _ = write!(
            out,
            "<g class=\"{}\"><line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"label\" x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text></g>",
            marker.tone.class(),
            y - 10.0,
            self.bottom,
            escape(&marker.label)
        );
    }
}

/// The legend stands to the left, where a narrow screen shows it without scrolling.
fn legend(out: &mut String, series: &[Series], y_label: &str) {
    let widths: Vec<f64> = series
        .iter()
        .map(|series| series.name.chars().count() as f64 * LETTER + 42.0)
        .collect();
    let mut x = 4.0 + y_label.chars().count() as f64 * LETTER + 26.0;
    for (series, width) in series.iter().zip(widths) {
        let _ = write!(
            out,
            "<g class=\"{}\"><line class=\"curve{}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"10\" y2=\"10\"/></g>\
             <text x=\"{:.1}\" y=\"14\">{}</text>",
            series.tone.class(),
            series.tone.dash(),
            x + 20.0,
            x + 25.0,
            escape(&series.name)
        );
        x += width;
    }
}

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is, to the left.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// Its value in words, beside it.
    pub text: String,
    /// What it means.
    pub tone: Tone,
}

/// Horizontal bars from zero; values that are not finite or below zero are drawn as zero.
pub fn bars(title: &str, bars: &[Bar]) -> Svg {
    if bars.is_empty() {
        return empty(title);
    }
    let letters = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
    let left = (letters as f64 * LETTER + 14.0).min(WIDTH * 0.45);
    let text = bars.iter().map(|bar| bar.text.chars().count()).max().unwrap_or(0) as f64 * LETTER + 14.0;
    let length = |bar: &Bar| if bar.value.is_finite() { bar.value.max(0.0) } else { 0.0 };
    let longest = bars.iter().map(length).fold(0.0, f64::max).max(1e-12);
    let mut out = open(title, bars.len() as f64 * 26.0 + 8.0);
    for (i, bar) in bars.iter().enumerate() {
        let y = i as f64 * 26.0 + 5.0;
        let width = length(bar) / longest * (WIDTH - left - text).max(40.0);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar {}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 8.0,
            y + 13.0,
            escape(&bar.label),
            bar.tone.class(),
            width.max(1.0),
            left + width + 7.0,
            y + 13.0,
            escape(&bar.text)
        );
    }
    out.push_str("</svg>");
    Svg(out)
}

/// One look at a canary: when, and the natural logarithms of the evidence that it is worse and that it is good enough.
#[derive(Debug, Clone, Copy)]
pub struct EvidencePoint {
    /// Seconds from the start.
    pub at_seconds: f64,
    /// `ln e` that it is worse.
    pub worse_ln_e: f64,
    /// `ln e` for a pass.
    pub pass_ln_e: f64,
}

/// The evidence of a canary over time, in powers of ten: who crosses a line first decides.
pub fn evidence(
    points: &[EvidencePoint],
    worse_threshold_ln_e: f64,
    pass_threshold_ln_e: f64,
    markers: Vec<Marker>,
) -> Svg {
    let ten = std::f64::consts::LN_10;
    let line = |pick: &dyn Fn(&EvidencePoint) -> f64| points.iter().map(|p| (p.at_seconds, pick(p) / ten)).collect();
    LineChart {
        title: "Evidence for and against the canary".to_owned(),
        x_label: "seconds".to_owned(),
        y_label: "evidence, powers of ten".to_owned(),
        series: vec![
            Series::new("good enough", Tone::Good, line(&|p| p.pass_ln_e)),
            Series::new("worse than stable", Tone::Bad, line(&|p| p.worse_ln_e)),
        ],
        markers,
        thresholds: vec![
            (pass_threshold_ln_e / ten, "enough for a pass".to_owned(), Tone::Good),
            (
                worse_threshold_ln_e / ten,
                "enough for a roll-back".to_owned(),
                Tone::Bad,
            ),
        ],
        y_low: -2.0,
        y_high: Some(4.0),
        ..LineChart::default()
    }
    .render()
}

/// Counts per interval as rates: `(end of interval, its length, count)` becomes points of at least one second each, and of
/// at most 180 in all.
pub fn per_second(intervals: impl Iterator<Item = (f64, f64, f64)>) -> Vec<(f64, f64)> {
    let intervals: Vec<(f64, f64, f64)> = intervals.collect();
    let end = intervals.last().map_or(0.0, |i| i.0);
    let width = (end / 180.0).max(1.0);
    let mut points = Vec::new();
    let (mut time, mut count) = (0.0, 0.0);
    for (at, length, n) in intervals {
        time += length;
        count += n;
        if time >= width - 1e-6 {
            points.push((at - time / 2.0, count / time));
            (time, count) = (0.0, 0.0);
        }
    }
    if time > width / 2.0 {
        points.push((end - time / 2.0, count / time));
    }
    points
}

/// Round values from `low` to at least `high`, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= raw - 1e-12)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil();
    let mut ticks = Vec::new();
    for i in 0..200 {
        let tick = (first + f64::from(i)) * step;
        ticks.push(tick);
        if tick >= high - 1e-9 * step {
            break;
        }
    }
    ticks
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return format!("{:.0}k", value / 1000.0).replace(".0k", "k");
    }
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.replace('-', "−")
    }
}

fn finite(point: (f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

fn empty(title: &str) -> Svg {
    let mut out = open(title, 60.0);
    let _ = write!(
        out,
        "<text class=\"tick\" x=\"{:.0}\" y=\"34\" text-anchor=\"middle\">no data</text></svg>",
        WIDTH / 2.0
    );
    Svg(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks(0.0, 200.0, 5), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(ticks(-2.0, 4.0, 5), [-2.0, 0.0, 2.0, 4.0]);
        assert_eq!(ticks(0.0, 3.0, 3), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_is_not_finite_is_not_drawn() {
        let svg = LineChart {
            series: vec![Series::new(
                "a",
                Tone::Plain,
                vec![(0.0, f64::NAN), (1.0, 2.0), (2.0, f64::INFINITY), (3.0, 4.0)],
            )],
            ..LineChart::default()
        }
        .render();
        assert!(!svg.as_str().contains("NaN") && !svg.as_str().contains("inf"));
        assert!(LineChart::default().render().as_str().contains("no data"));
        let bars = bars(
            "b",
            &[Bar {
                label: "x".to_owned(),
                value: f64::NAN,
                text: "?".to_owned(),
                tone: Tone::Plain,
            }],
        );
        assert!(!bars.as_str().contains("NaN"));
    }

    #[test]
    fn labels_that_would_overlap_get_rows_of_their_own() {
        let chart = LineChart {
            series: vec![Series::new("a", Tone::Plain, vec![(0.0, 1.0), (10.0, 1.0)])],
            markers: vec![
                Marker::new(1.0, "a long label here", Tone::Bad),
                Marker::new(1.1, "another one", Tone::Good),
                Marker::new(9.9, "at the very end of it", Tone::Good),
            ],
            ..LineChart::default()
        };
        assert_eq!(chart.place_markers(0.0, 10.0), [0, 1, 0]);
    }

    #[test]
    fn rates_come_in_whole_seconds_at_least() {
        let quarter = (1..=8).map(|i| (f64::from(i) * 0.25, 0.25, 5.0));
        assert_eq!(per_second(quarter), [(0.5, 20.0), (1.5, 20.0)]);
    }
}
