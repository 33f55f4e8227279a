//! Panels over time: lines, states, heat maps.

use std::collections::BTreeMap;

use pictures::{Axis, Colour, Dot, Heat, Legend, Lines, Series, Shape, States, Threshold, Tone};

use super::{Scene, Shown};
use crate::draw::ask::{self, Question};
use crate::draw::data::Exemplar;
use crate::draw::field::Field;

/// Lines, bars or points.
pub(super) fn lines(scene: &Scene<'_>, named: &[Shown<'_>], whole: &Field) -> Lines {
    let mut before = None;
    let series = named.iter().map(|one| {
        // Exemplars belong to a query; they are shown with its first series.
        let first = before != Some(&one.target.name);
        before = Some(&one.target.name);
        let shape = match &one.field {
            field if field.bars => Shape::Bars,
            field if field.points => Shape::Points,
            field if field.stepped => Shape::Step,
            _ => Shape::Line,
        };
        Series {
            colour: one.field.colour,
            shape,
            fill: if one.field.stacked {
                one.field.fill.max(0.2)
            } else {
                one.field.fill * 0.5
            },
            dots: if first && one.target.exemplars {
                dots(scene, one)
            } else {
                Vec::new()
            },
            ..Series::new(&one.name, one.series.points.clone())
        }
    });
    let series: Vec<Series> = series.collect();
    let thresholds = whole.steps.iter().filter(|step| whole.lines && step.0.is_finite());
    let field = named.first().map_or(whole, |one| &one.field);
    let apart = named
        .iter()
        .map(|one| ask::step(scene.span, one.target))
        .fold(scene.span.step, f64::max);
    Lines {
        axis: Axis::Clock,
        span: Some((scene.span.from, scene.span.to)),
        unit: field.unit.clone(),
        decimals: field.decimals,
        stacked: named.iter().any(|one| one.field.stacked),
        low: whole.min,
        high: whole.max,
        logarithmic: whole.logarithmic,
        apart: Some(apart * 1.5),
        marks: scene.marks.to_vec(),
        thresholds: thresholds
            .map(|(value, colour)| Threshold {
                value: *value,
                label: field.unit.format(*value, None),
                tone: tone(*colour),
            })
            .collect(),
        legend: if legend_is_hidden(scene) {
            Legend::None
        } else {
            Legend::Values
        },
        series,
        ..Lines::default()
    }
}

fn legend_is_hidden(scene: &Scene<'_>) -> bool {
    let json = &scene.panel.json;
    json["options"]["legend"]["showLegend"] == false
        || json["options"]["legend"]["displayMode"] == "hidden"
        || json["legend"]["show"] == false
}

fn tone(colour: Colour) -> Tone {
    match colour {
        Colour::Of(tone) => tone,
        _ => Tone::Plain,
    }
}

fn dots(scene: &Scene<'_>, one: &Shown<'_>) -> Vec<Dot> {
    let question = Question::Exemplars(ask::expr(one.target, scene.variables, scene.span));
    let words = |exemplar: &Exemplar| {
        let pairs = exemplar
            .labels
            .iter()
            .take(8)
            .map(|(label, value)| format!("{label} {value}"));
        pairs.collect::<Vec<_>>().join(", ")
    };
    scene
        .answers
        .exemplars(&question)
        .iter()
        .map(|exemplar| Dot {
            x: exemplar.at,
            y: exemplar.value,
            words: words(exemplar),
        })
        .collect()
}

/// The state of each series in each stretch of time.
pub(super) fn states(scene: &Scene<'_>, named: &[Shown<'_>]) -> States {
    let rows = named.iter().map(|one| {
        let step = ask::step(scene.span, one.target);
        let spans = one.series.points.iter().map(|(at, value)| {
            let (text, colour) = one.field.write(Some(*value));
            let plain = one.field.colour.unwrap_or(Colour::Of(Tone::Plain));
            pictures::Span {
                from: *at,
                to: (at + step).min(scene.span.to),
                text,
                colour: colour.filter(|colour| !matches!(colour, Colour::Ink)).unwrap_or(plain),
            }
        });
        (one.name.clone(), spans.collect())
    });
    States {
        rows: rows.collect(),
        span: Some((scene.span.from, scene.span.to)),
    }
}

/// Buckets over time: by their bound where they have one, else as rows.
pub(super) fn heat(scene: &Scene<'_>, named: &[Shown<'_>], whole: &Field) -> Heat {
    let span = Some((scene.span.from, scene.span.to));
    let unit = whole.unit.clone();
    let bound = |one: &Shown<'_>| match one.series.labels.get("le").map(String::as_str) {
        Some("+Inf") => Some(f64::INFINITY),
        Some(text) => text.parse::<f64>().ok().filter(|bound| !bound.is_nan()),
        None => None,
    };
    let mut buckets: Vec<(f64, &Shown<'_>)> = named.iter().filter_map(|one| Some((bound(one)?, one))).collect();
    if buckets.is_empty() {
        let rows = named.iter().map(|one| (one.name.clone(), one.series.points.clone()));
        return Heat {
            rows: rows.collect(),
            unit,
            span,
        };
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let axis = pictures::Unit::named(scene.panel.json["options"]["yAxis"]["unit"].as_str().unwrap_or("short"));
    // Prometheus counts everything up to a bound; a cell shows what is between two.
    let counted =
        buckets.iter().any(|(_, one)| one.target.format == "heatmap") || scene.panel.json["dataFormat"] == "tsbuckets";
    let mut below: BTreeMap<u64, f64> = BTreeMap::new();
    let rows = buckets.iter().map(|(bound, one)| {
        let name = if bound.is_infinite() {
            "+Inf".to_owned()
        } else {
            axis.format(*bound, None)
        };
        let cells = one.series.points.iter().map(|(at, value)| {
            let lower = below.insert(at.to_bits(), *value).filter(|_| counted).unwrap_or(0.0);
            (*at, (value - lower).max(0.0))
        });
        (name, cells.collect())
    });
    // The unit of the fields is that of the bounds.
    let cells = scene.panel.json["options"]["cellValues"]["unit"].as_str();
    Heat {
        rows: rows.collect(),
        unit: pictures::Unit::named(cells.unwrap_or("short")),
        span,
    }
}
