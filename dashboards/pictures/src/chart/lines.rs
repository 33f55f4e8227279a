//! Values over time: lines, steps, points or bars, stacked or not, with gaps where nothing was measured.

use std::collections::HashMap;

use super::legend::{self, Entry, Legend};
use super::plot::{self, Axis, Mark, Plot, ROW, SMALL, Threshold};
use super::{Chart, NO_DATA, nothing};
use crate::area::Area;
use crate::canvas::{Canvas, Stroke, Type};
use crate::scale::{self, Scale, tame};
use crate::theme::{Colour, Tone};
use crate::thin::stretches;
use crate::unit::Unit;

/// How the samples of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Joined.
    Line,
    /// Each holds until the next.
    Step,
    /// Dots.
    Points,
    /// Bars from zero.
    Bars,
}

/// One series.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour; absent: that of its number.
    pub colour: Option<Colour>,
    /// How it is drawn.
    pub shape: Shape,
    /// How strongly the area below it is filled, from 0 to 1.
    pub fill: f64,
    /// Points with rising x. One whose y is not finite is a gap.
    pub points: Vec<(f64, f64)>,
    /// Single events beside the samples: exemplars.
    pub dots: Vec<Dot>,
}

/// A single event with what is known of it.
#[derive(Debug, Clone)]
pub struct Dot {
    /// When.
    pub x: f64,
    /// Its value.
    pub y: f64,
    /// What is shown where a pointer rests on it.
    pub words: String,
}

impl Series {
    /// A line.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            colour: None,
            shape: Shape::Line,
            fill: 0.0,
            points,
            dots: Vec::new(),
        }
    }

    /// A line that means something.
    pub fn of(name: &str, tone: Tone, points: Vec<(f64, f64)>) -> Self {
        Self {
            colour: Some(Colour::Of(tone)),
            ..Self::new(name, points)
        }
    }
}

/// Values over time.
#[derive(Debug, Clone)]
pub struct Lines {
    /// What the horizontal axis counts.
    pub axis: Axis,
    /// Its ends; absent: those of the points, and zero where it counts from there.
    pub span: Option<(f64, f64)>,
    /// A few words above the vertical axis, or none.
    pub label: String,
    /// What values are counted in.
    pub unit: Unit,
    /// Digits behind the point in the legend; absent: about three digits in all.
    pub decimals: Option<u8>,
    /// The series, drawn in this order.
    pub series: Vec<Series>,
    /// Each series on top of the one before.
    pub stacked: bool,
    /// Moments, as vertical lines with words above.
    pub marks: Vec<Mark>,
    /// Shaded stretches of the horizontal axis.
    pub bands: Vec<(f64, f64)>,
    /// Values that matter.
    pub thresholds: Vec<Threshold>,
    /// The least value that is drawn; lower ones are drawn on it. Absent: as low as the points, or zero.
    pub low: Option<f64>,
    /// The greatest value that is drawn. Absent: as high as the points and thresholds.
    pub high: Option<f64>,
    /// In powers of ten.
    pub logarithmic: bool,
    /// Points that are further apart are not joined.
    pub apart: Option<f64>,
    /// What stands below.
    pub legend: Legend,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            axis: Axis::Clock,
            span: None,
            label: String::new(),
            unit: Unit::default(),
            decimals: None,
            series: Vec::new(),
            stacked: false,
            marks: Vec::new(),
            bands: Vec::new(),
            thresholds: Vec::new(),
            low: None,
            high: None,
            logarithmic: false,
            apart: None,
            legend: Legend::Names,
        }
    }
}

/// More series than these cannot be told apart; those with the greatest values are drawn.
const MOST: usize = 40;
/// More single events than these of one series are not drawn.
const DOTS: usize = 200;

/// A series as it is drawn: upper and lower values, one each for every x.
struct Layer<'a> {
    series: &'a Series,
    colour: Colour,
    upper: Vec<(f64, Option<f64>)>,
    lower: Option<Vec<(f64, Option<f64>)>>,
}

impl Layer<'_> {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.upper.iter().filter_map(|point| point.1)
    }
}

impl Lines {
    /// The series that are drawn, and how many are not.
    fn layers(&self) -> (Vec<Layer<'_>>, usize) {
        let mut chosen: Vec<usize> = (0..self.series.len()).collect();
        if chosen.len() > MOST {
            let peak = |index: &usize| {
                let values = self.series[*index].points.iter().map(|point| point.1);
                scale::range(values).map_or(f64::NEG_INFINITY, |(_, high)| high)
            };
            let peaks: HashMap<usize, f64> = chosen.iter().map(|index| (*index, peak(index))).collect();
            chosen.sort_by(|a, b| peaks[b].total_cmp(&peaks[a]).then(a.cmp(b)));
            chosen.truncate(MOST);
            chosen.sort_unstable();
        }
        let hidden = self.series.len() - chosen.len();
        let mut base: HashMap<u64, f64> = HashMap::new();
        let layers = chosen.into_iter().map(|index| {
            let series = &self.series[index];
            let own = series.points.iter().filter(|point| point.0.is_finite());
            let mut upper: Vec<(f64, Option<f64>)> = own.map(|point| (point.0, tame(point.1))).collect();
            let mut lower = None;
            if self.stacked {
                let below = |x: f64| base.get(&x.to_bits()).copied().unwrap_or(0.0);
                lower = Some(upper.iter().map(|(x, y)| (*x, y.map(|_| below(*x)))).collect());
                for (x, y) in &mut upper {
                    *y = y.map(|y| y + below(*x));
                }
                base.extend(upper.iter().filter_map(|(x, y)| Some((x.to_bits(), (*y)?))));
            }
            Layer {
                series,
                colour: series.colour.unwrap_or(Colour::Series(index)),
                upper,
                lower,
            }
        });
        (layers.collect(), hidden)
    }

    /// The ends of the vertical axis.
    fn ends(&self, layers: &[Layer<'_>]) -> (f64, f64) {
        let shown = scale::range(layers.iter().flat_map(Layer::values)).unwrap_or((0.0, 1.0));
        // Events are shown where the lines are, or near; one far out must not press the lines flat.
        let near = |y: &f64| *y <= shown.1.max(0.0) * 2.0 && *y >= shown.0.min(0.0) * 2.0;
        let dots = layers
            .iter()
            .flat_map(|layer| layer.series.dots.iter().map(|dot| dot.y));
        let shown = scale::range(dots.filter(near)).map_or(shown, |(low, high)| (shown.0.min(low), shown.1.max(high)));
        let labelled = self.thresholds.iter().filter(|threshold| !threshold.label.is_empty());
        let (mut low, mut high) = scale::range(labelled.map(|threshold| threshold.value))
            .map_or(shown, |(low, high)| (shown.0.min(low), shown.1.max(high)));
        let from_zero = self.stacked
            || layers
                .iter()
                .any(|layer| layer.series.fill > 0.0 || layer.series.shape == Shape::Bars)
            || low > 0.0 && low < high * 0.5;
        if from_zero && !self.logarithmic {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        let low = self.low.and_then(tame).unwrap_or(low);
        let high = self.high.and_then(tame).unwrap_or(high);
        scale::spread((low, high.max(low)))
    }

    fn entries(&self, layers: &[Layer<'_>]) -> Vec<Entry> {
        let figures = |series: &Series| {
            let values = || series.points.iter().filter_map(|point| tame(point.1));
            match (values().next_back(), scale::range(values())) {
                (Some(last), Some((_, most))) if self.legend == Legend::Values => {
                    let text = |value| self.unit.format(value, self.decimals);
                    format!("last {}, max {}", text(last), text(most))
                }
                _ => String::new(),
            }
        };
        let entry = |layer: &Layer<'_>| Entry {
            colour: layer.colour,
            filled: layer.series.shape == Shape::Bars || layer.lower.is_some(),
            name: layer.series.name.clone(),
            figures: figures(layer.series),
        };
        match self.legend {
            Legend::None => Vec::new(),
            _ => layers.iter().map(entry).collect(),
        }
    }

    fn layer(&self, canvas: &mut Canvas, plot: &Plot, layer: &Layer<'_>) {
        let Layer { series, colour, .. } = layer;
        let apart = self.apart.unwrap_or(f64::INFINITY);
        let place = |points: &[(f64, Option<f64>)]| {
            let mut all = stretches(points.iter().copied(), apart, |x, y| plot.at(x, y));
            if series.shape == Shape::Step {
                all.iter_mut().for_each(step);
            }
            all
        };
        let upper = place(&layer.upper);
        let zero = plot.y.at(0.0);
        let lower = match &layer.lower {
            Some(points) => place(points),
            None => upper
                .iter()
                .map(|stretch| stretch.iter().map(|(x, _)| (*x, zero)).collect())
                .collect(),
        };
        if series.shape == Shape::Bars {
            return bars(canvas, plot, &upper, &lower, *colour);
        }
        if series.shape != Shape::Points {
            if series.fill > 0.0 {
                let shapes: Vec<Vec<_>> = upper
                    .iter()
                    .zip(lower)
                    .map(|(top, bottom)| top.iter().copied().chain(bottom.into_iter().rev()).collect())
                    .collect();
                canvas.shapes(&shapes, *colour, series.fill, "");
            }
            canvas.lines(&upper, Stroke::new(*colour, 2.0), &series.name);
        }
        // A line needs two points; what stands alone is a dot.
        for stretch in upper {
            if stretch.len() == 1 || series.shape == Shape::Points {
                for point in stretch {
                    canvas.dot(point, 2.5, *colour, "");
                }
            }
        }
    }
}

/// Each point holds until the next.
fn step(stretch: &mut Vec<(f64, f64)>) {
    let mut steps: Vec<(f64, f64)> = Vec::with_capacity(stretch.len() * 2);
    for point in stretch.iter() {
        if let Some(before) = steps.last().copied() {
            steps.push((point.0, before.1));
        }
        steps.push(*point);
    }
    *stretch = steps;
}

/// A bar for each point, as wide as points are apart.
fn bars(canvas: &mut Canvas, plot: &Plot, upper: &[Vec<(f64, f64)>], lower: &[Vec<(f64, f64)>], colour: Colour) {
    let apart = upper
        .iter()
        .flat_map(|stretch| stretch.windows(2))
        .map(|pair| pair[1].0 - pair[0].0)
        .filter(|apart| *apart > 0.0)
        .fold(f64::INFINITY, f64::min);
    let half = if apart.is_finite() { (apart * 0.4).max(0.5) } else { 8.0 };
    let ends = |x: f64| ((x - half).max(plot.area.x), (x + half).min(plot.area.right()));
    let shapes: Vec<Vec<(f64, f64)>> = upper
        .iter()
        .flatten()
        .zip(lower.iter().flatten())
        .map(|((x, top), (_, bottom))| {
            let (left, right) = ends(*x);
            vec![(left, *bottom), (left, *top), (right, *top), (right, *bottom)]
        })
        .collect();
    canvas.shapes(&shapes, colour, 1.0, "");
}

impl Chart for Lines {
    fn describe(&self) -> String {
        let text = |value| self.unit.format(value, self.decimals);
        let mut words: Vec<String> = Vec::new();
        for series in self.series.iter().take(8) {
            let values = || series.points.iter().filter_map(|point| tame(point.1));
            if let (Some((low, high)), Some(last)) = (scale::range(values()), values().next_back()) {
                words.push(format!(
                    "{}: from {} to {}, last {}.",
                    series.name,
                    text(low),
                    text(high),
                    text(last)
                ));
            }
        }
        if words.is_empty() {
            return NO_DATA.to_owned();
        }
        if self.series.len() > 8 {
            words.push(format!("{} series in all.", self.series.len()));
        }
        words.join(" ")
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        let (layers, hidden) = self.layers();
        let times = || layers.iter().flat_map(|layer| layer.upper.iter().map(|point| point.0));
        if layers.iter().all(|layer| layer.values().next().is_none()) {
            return nothing(canvas, area, NO_DATA);
        }
        let zero = match &self.axis {
            Axis::Clock => None,
            Axis::Number(_) => Some(0.0),
        };
        let span = self
            .span
            .or_else(|| scale::range(times().chain(zero)))
            .unwrap_or((0.0, 1.0));
        let span = scale::spread((tame(span.0).unwrap_or(0.0), tame(span.1).unwrap_or(0.0)));
        let entries = self.entries(&layers);
        let below = ROW + 8.0;
        let legend_height = match entries.len() + hidden {
            0 => 0.0,
            _ => legend::height(&entries, area.width, area.height * 0.34) + 4.0,
        };
        let above = if self.label.is_empty() { 6.0 } else { ROW + 4.0 };
        let rough = area.height - below - legend_height - above;
        let (low, high) = self.ends(&layers);
        let logarithmic = self.logarithmic && low > 0.0;
        let ticks: Vec<(f64, String)> = if logarithmic {
            let powers = scale::powers(low, high, (rough / 30.0) as usize);
            powers
                .into_iter()
                .map(|tick| (tick, self.unit.format(tick, None)))
                .collect()
        } else {
            self.unit.ticks(low, high, (rough / 40.0).clamp(2.0, 8.0) as usize)
        };
        // The axis ends at round values where nobody has said otherwise.
        let first = ticks.first().map_or(low, |tick| tick.0);
        let last = ticks.last().map_or(high, |tick| tick.0);
        let ends = (
            self.low.map_or(first, |_| low),
            self.high.map_or(last.max(high), |_| high),
        );
        let inside = |tick: &(f64, String)| (ends.0..=ends.1).contains(&tick.0);
        let ticks: Vec<(f64, String)> = ticks.into_iter().filter(inside).collect();
        let left = plot::gutter(&ticks, area.width * 0.4);
        let inner = area.inset(left, above, 8.0, below + legend_height);
        let x = Scale::new(span, (inner.x, inner.right()));
        let (rows, count) = plot::rows(&self.marks, &x, inner, (inner.height / ROW / 3.0) as usize);
        let inner = inner.inset(0.0, count as f64 * ROW, 0.0, 0.0);
        let mut y = Scale::new(ends, (inner.bottom(), inner.y));
        if logarithmic {
            y = y.logarithmic();
        }
        let plot = Plot { area: inner, x, y };
        if !self.label.is_empty() {
            let kind = Type::new(SMALL, Colour::Soft).room(area.width);
            canvas.text((area.x, area.y + 12.0), kind, &self.label);
        }
        plot::bands(canvas, &plot, &self.bands);
        plot::values(canvas, &plot, &ticks);
        plot::below(canvas, inner, &plot.x, span, &self.axis);
        for layer in &layers {
            self.layer(canvas, &plot, layer);
        }
        for layer in &layers {
            for dot in layer.series.dots.iter().take(DOTS) {
                if let (Some(x), Some(y)) = (tame(dot.x), tame(dot.y).filter(|y| (ends.0..=ends.1).contains(y))) {
                    canvas.diamond(plot.at(x, y), 4.0, layer.colour, &dot.words);
                }
            }
        }
        plot::thresholds(canvas, &plot, &self.thresholds, ends);
        plot::marks(canvas, &plot, &self.marks, &rows, count);
        let under = area.bottom() - legend_height + 4.0;
        let place = Area::new(area.x, under, area.width, area.bottom() - under);
        legend::draw(canvas, place, &entries, hidden);
    }
}
