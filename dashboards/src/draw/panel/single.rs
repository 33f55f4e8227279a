//! Panels that show one value of each series: numbers, gauges, bars, shares of a whole.

use pictures::{Bar, Bars, Colour, Gauge, Gauges, Number, Numbers, Tone};

use super::{Scene, Shown};
use crate::draw::data::Series;
use crate::draw::field::Field;

/// The value of a series that a panel asks for.
fn reduce(scene: &Scene<'_>, series: &Series) -> Option<f64> {
    let json = &scene.panel.json;
    let asked = json["options"]["reduceOptions"]["calcs"][0].as_str();
    let asked = asked.or(json["valueName"].as_str()).unwrap_or("lastNotNull");
    let values = || {
        series
            .points
            .iter()
            .map(|point| point.1)
            .filter(|value| !value.is_nan())
    };
    let count = values().count();
    let sum = || values().sum::<f64>();
    match asked {
        "min" => values().reduce(f64::min),
        "max" => values().reduce(f64::max),
        "mean" | "avg" => (count > 0).then(|| sum() / count as f64),
        "sum" | "total" => (count > 0).then(sum),
        "first" | "firstNotNull" => values().next(),
        "count" => Some(count as f64),
        "range" => Some(values().reduce(f64::max)? - values().reduce(f64::min)?),
        "delta" | "diff" => Some(values().next_back()? - values().next()?),
        "last" => series.points.last().map(|point| point.1),
        _ => values().next_back(),
    }
}

/// The colour of a value: that of its step or mapping, where the panel colours by it.
fn colour(field: &Field, told: Option<Colour>, plain: Colour) -> Colour {
    let by_step = if field.by_step || field.colour.is_none() {
        told
    } else {
        None
    };
    by_step.or(field.colour).unwrap_or(plain)
}

/// Large numbers.
pub(super) fn numbers(scene: &Scene<'_>, named: &[Shown<'_>], whole: &Field) -> Numbers {
    let options = &scene.panel.json["options"];
    let sparked = match options["graphMode"].as_str() {
        Some(mode) => mode != "none",
        None => scene.panel.json["sparkline"]["show"] != false,
    };
    let plain = options["colorMode"] == "none";
    let number = |one: &Shown<'_>| {
        let (text, told) = one.field.write(reduce(scene, one.series));
        Number {
            label: one.name.clone(),
            text,
            colour: if plain {
                Colour::Ink
            } else {
                colour(&one.field, told, Colour::Ink)
            },
            way: if sparked { one.series.points.clone() } else { Vec::new() },
        }
    };
    let mut numbers: Vec<Number> = named.iter().map(number).collect();
    if let (true, Some((text, colour))) = (numbers.is_empty(), whole.nothing()) {
        // A board may say that nothing is good news.
        numbers.push(Number {
            label: String::new(),
            text,
            colour: colour.unwrap_or(Colour::Ink),
            way: Vec::new(),
        });
    }
    Numbers { numbers }
}

/// The ends of the scale of a gauge.
fn ends(field: &Field, named: &[Shown<'_>], scene: &Scene<'_>) -> (f64, f64) {
    let most = named
        .iter()
        .filter_map(|one| reduce(scene, one.series))
        .fold(0.0, f64::max);
    let percent = field.unit == pictures::Unit::named("percentunit");
    let usual = if percent { 1.0 } else { 100.0 };
    let (low, high) = (field.min.unwrap_or(0.0), field.max.unwrap_or(most.max(usual)));
    if high > low { (low, high) } else { (low, low + 1.0) }
}

/// Gauges.
pub(super) fn gauges(scene: &Scene<'_>, named: &[Shown<'_>]) -> Gauges {
    let gauge = |one: &Shown<'_>| {
        let (low, high) = ends(&one.field, named, scene);
        let value = reduce(scene, one.series);
        let (text, told) = one.field.write(value);
        let part = |value: f64| (value - low) / (high - low);
        let step = |from: f64| match from {
            f64::NEG_INFINITY => 0.0,
            from if one.field.in_percent => from / 100.0,
            from => part(from),
        };
        Gauge {
            label: one.name.clone(),
            part: value.map_or(f64::NAN, part),
            text,
            colour: colour(&one.field, told, Colour::Of(Tone::Plain)),
            steps: one
                .field
                .steps
                .iter()
                .map(|(from, colour)| (step(*from), *colour))
                .collect(),
        }
    };
    Gauges {
        gauges: named.iter().map(gauge).collect(),
    }
}

/// Bars, the longest first where they are many.
pub(super) fn bars(scene: &Scene<'_>, named: &[Shown<'_>]) -> Bars {
    let bar = |one: &Shown<'_>| {
        let value = reduce(scene, one.series);
        let (text, told) = one.field.write(value);
        let low = one.field.min.unwrap_or(0.0);
        Bar {
            label: one.name.clone(),
            value: value.unwrap_or(f64::NAN) - low,
            text,
            colour: colour(&one.field, told, Colour::Of(Tone::Plain)),
        }
    };
    let field = named.first().map(|one| &one.field);
    Bars {
        bars: named.iter().map(bar).collect(),
        full: field.and_then(|field| Some(field.max? - field.min.unwrap_or(0.0))),
    }
}

/// Shares of a whole, as bars: their lengths can be compared, those of slices cannot.
pub(super) fn shares(scene: &Scene<'_>, named: &[Shown<'_>]) -> Bars {
    let mut values: Vec<(f64, &Shown<'_>)> = named
        .iter()
        .filter_map(|one| Some((reduce(scene, one.series)?, one)))
        .filter(|(value, _)| value.is_finite() && *value >= 0.0)
        .collect();
    values.sort_by(|a, b| b.0.total_cmp(&a.0));
    let sum: f64 = values.iter().map(|(value, _)| value).sum();
    let bars = values.iter().map(|(value, one)| {
        let share = pictures::Unit::named("percentunit").format(value / sum.max(f64::MIN_POSITIVE), None);
        Bar {
            label: one.name.clone(),
            value: *value,
            text: format!("{share} ({})", one.field.write(Some(*value)).0),
            colour: one.field.colour.unwrap_or(Colour::Of(Tone::Plain)),
        }
    });
    Bars {
        bars: bars.collect(),
        full: None,
    }
}
