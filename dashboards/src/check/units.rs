//! Whether the unit of a panel is that of its values: what an expression is in follows from its metrics and from what is
//! done to them. Where that is not certain nothing is said.

use lint::{Fix, Severity};
use manifest::{Manifest, Part, Source, Unit};
use promql::ast::{Aggregator, BinaryOp, Expr};

use super::question::Asker;
use super::table::UNIT_MISMATCH;
use super::{Look, fix};

/// What a value is in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Quantity {
    /// Of what kind it is; milliseconds are seconds.
    unit: Unit,
    /// How many times larger the number is than in the unit itself: 1000 for milliseconds.
    factor: f64,
    /// Whether it is per second.
    rate: bool,
    /// Whether the name alone says so.
    guessed: bool,
}

impl Quantity {
    const fn new(unit: Unit, factor: f64, rate: bool) -> Self {
        Self {
            unit,
            factor,
            rate,
            guessed: false,
        }
    }

    /// The unit of both, when they have the same.
    fn same(self, other: Self) -> Option<Self> {
        let guessed = self.guessed || other.guessed;
        (Self { guessed, ..self } == Self { guessed, ..other }).then_some(Self { guessed, ..self })
    }

    /// A number times as large, where that number turns units into each other; after any other, such as that of
    /// replicas, nobody knows what it is.
    fn times(self, by: f64) -> Option<Self> {
        let powers = |base: f64| (1..=4).map(move |power| base.powi(power));
        let factors: Vec<f64> = match self.unit {
            Unit::Seconds if !self.rate => powers(1000.0).chain([60.0, 3600.0, 86_400.0, 604_800.0]).collect(),
            Unit::Bytes => powers(1000.0).chain(powers(1024.0)).chain([8.0]).collect(),
            Unit::Ratio => vec![100.0],
            Unit::Timestamp => vec![1000.0],
            _ => Vec::new(),
        };
        let near = |wanted: f64| (by / wanted - 1.0).abs() < 1e-9;
        let known = by > 0.0 && (near(1.0) || factors.iter().any(|factor| near(*factor) || near(1.0 / factor)));
        known.then_some(Self {
            factor: self.factor * by,
            ..self
        })
    }
}

/// What Grafana takes a number for.
fn of_panel(id: &str) -> Option<Quantity> {
    const KIBI: f64 = 1024.0;
    let (unit, factor, rate) = match id {
        "s" | "dtdurations" | "clocks" | "dthms" => (Unit::Seconds, 1.0, false),
        "ms" | "dtdurationms" | "clockms" => (Unit::Seconds, 1e3, false),
        "µs" => (Unit::Seconds, 1e6, false),
        "ns" => (Unit::Seconds, 1e9, false),
        "m" => (Unit::Seconds, 1.0 / 60.0, false),
        "h" => (Unit::Seconds, 1.0 / 3600.0, false),
        "d" => (Unit::Seconds, 1.0 / 86_400.0, false),
        "bytes" | "decbytes" => (Unit::Bytes, 1.0, false),
        "kbytes" | "deckbytes" => (Unit::Bytes, 1.0 / KIBI, false),
        "mbytes" | "decmbytes" => (Unit::Bytes, 1.0 / (KIBI * KIBI), false),
        "gbytes" | "decgbytes" => (Unit::Bytes, 1.0 / (KIBI * KIBI * KIBI), false),
        "bits" | "decbits" => (Unit::Bytes, 8.0, false),
        "Bps" | "binBps" => (Unit::Bytes, 1.0, true),
        "bps" | "binbps" => (Unit::Bytes, 8.0, true),
        "KBs" | "KiBs" => (Unit::Bytes, 1.0 / KIBI, true),
        "MBs" | "MiBs" => (Unit::Bytes, 1.0 / (KIBI * KIBI), true),
        "percentunit" => (Unit::Ratio, 1.0, false),
        "percent" => (Unit::Ratio, 100.0, false),
        _ if id.starts_with("dateTime") => (Unit::Timestamp, 1e3, false),
        _ => return None,
    };
    Some(Quantity::new(unit, factor, rate))
}

/// Units that would be right, by what a value is in.
const RIGHT: [&str; 13] = [
    "s",
    "ms",
    "µs",
    "ns",
    "bytes",
    "kbytes",
    "mbytes",
    "gbytes",
    "bits",
    "binBps",
    "bps",
    "percentunit",
    "percent",
];

pub(super) fn of_panels(look: &mut Look<'_>) {
    for question in look.questions {
        let Asker::Panel(panel, target, _) = question.asker else {
            continue;
        };
        let Some((node, id)) = panel.unit().and_then(|node| Some((node, node.text()?))) else {
            continue;
        };
        // A heat map's unit is that of its buckets' bounds, not of how many there are in each.
        if matches!(panel.kind, "heatmap" | "histogram") || panel.has_overrides() || panel.transformed || target.hidden
        {
            continue;
        }
        let (Some(shown), Some(value)) = (of_panel(id), of(&question.query.expr, look.context.manifest)) else {
            continue;
        };
        let Some((what, severity)) = differs(shown, value, id) else {
            continue;
        };
        let fits = |id: &&str| of_panel(id).is_some_and(|other| differs(other, value, id).is_none());
        let right = RIGHT.into_iter().find(fits);
        let finding = look.find_in(panel, &UNIT_MISMATCH, node.span.clone(), what);
        finding.severity = severity;
        finding.fix = right.map(|id| Fix::proposal(format!("show it as `{id}`"), vec![fix::replace(node, id)]));
    }
}

fn words(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds | Unit::Milliseconds => "a duration",
        Unit::Timestamp => "a moment",
        Unit::Bytes => "an amount of data",
        Unit::Ratio => "a share",
        Unit::One | Unit::Unknown => "a count",
    }
}

/// What is wrong, and how gravely: names may lie.
fn differs(shown: Quantity, value: Quantity, id: &str) -> Option<(String, Severity)> {
    let (by, severity) = if value.guessed {
        ("By the names the", Severity::Warning)
    } else {
        ("The", Severity::Error)
    };
    if shown.unit != value.unit {
        let may_be = match (value.unit, shown.unit) {
            // It may be an average of zeros and ones, and what is above 1 is above 100 %.
            (Unit::One, Unit::Ratio) => true,
            // A moment is in seconds too.
            (Unit::Seconds, Unit::Timestamp) => value.guessed,
            _ => false,
        };
        let what = format!(
            "{by} values are {}, and `{id}` shows {}.",
            words(value.unit),
            words(shown.unit)
        );
        return (!may_be).then_some((what, severity));
    }
    if shown.rate && !value.rate {
        let what = format!(
            "{by} values are {}, and `{id}` shows so much per second.",
            words(value.unit)
        );
        return Some((what, Severity::Warning));
    }
    let off = value.factor / shown.factor;
    // 1000 and 1024 are the same here.
    if !(0.89..1.12).contains(&off) {
        let (large, how) = if off > 1.0 {
            (off, "large")
        } else {
            (1.0 / off, "small")
        };
        // What is called a ratio is often in per cent.
        let may_be = value.guessed && value.unit == Unit::Ratio && off < 1.0;
        let what = format!("{by} values are shown {} times too {how} in `{id}`.", large.round());
        return (!may_be).then_some((what, severity));
    }
    if value.rate && !shown.rate {
        let what = format!("The values are per second, and `{id}` does not say so.");
        return Some((what, Severity::Note));
    }
    None
}

/// What an expression is in. The parser limits how deep it goes.
fn of(expr: &Expr, manifest: &Manifest) -> Option<Quantity> {
    match expr {
        Expr::Selector(selector) => of_metric(
            selector.name.as_ref().filter(|name| !name.templated)?.text.as_ref(),
            manifest,
        ),
        Expr::Paren(paren) => of(&paren.expr, manifest),
        Expr::Unary(unary) => of(&unary.expr, manifest),
        Expr::Subquery(subquery) => of(&subquery.expr, manifest),
        Expr::Aggregation(aggregation) => match aggregation.aggregator()? {
            Aggregator::Sum
            | Aggregator::Avg
            | Aggregator::Min
            | Aggregator::Max
            | Aggregator::Topk
            | Aggregator::Bottomk
            | Aggregator::Quantile => of(&aggregation.expr, manifest),
            Aggregator::Count => Some(Quantity::new(Unit::One, 1.0, false)),
            _ => None,
        },
        Expr::Call(call) => of_call(call.name(), &call.arguments, manifest),
        Expr::Binary(binary) => of_binary(binary, manifest),
        Expr::Number(_) | Expr::String(_) | Expr::Variable(_) => None,
    }
}

fn of_metric(name: &str, manifest: &Manifest) -> Option<Quantity> {
    let (unit, guessed) = match manifest.lookup(name) {
        Some(found) => match found.part {
            Part::Bucket | Part::Count => (Unit::One, false),
            // What was seen has a type and no unit.
            Part::Sum | Part::Value => {
                let seen = matches!(found.metric.source, Source::Capture(_) | Source::Live(_));
                (found.metric.unit, seen)
            }
        },
        None if name.ends_with("_count") || name.ends_with("_bucket") => (Unit::Unknown, true),
        None => (Unit::of_name(name.strip_suffix("_sum").unwrap_or(name)), true),
    };
    let quantity = match unit {
        Unit::Unknown => return None,
        Unit::Milliseconds => Quantity::new(Unit::Seconds, 1e3, false),
        unit => Quantity::new(unit, 1.0, false),
    };
    Some(Quantity { guessed, ..quantity })
}

fn of_call(name: &str, arguments: &[Expr], manifest: &Manifest) -> Option<Quantity> {
    let argument = |at: usize| of(arguments.get(at)?, manifest);
    match name {
        "rate" | "irate" | "deriv" => {
            let of = argument(0)?;
            // Seconds per second are cores, or a share, or seconds: whoever asks knows.
            (!of.rate && matches!(of.unit, Unit::Bytes | Unit::One)).then_some(Quantity { rate: true, ..of })
        }
        "increase" | "delta" | "idelta" | "avg_over_time" | "max_over_time" | "min_over_time" | "last_over_time"
        | "abs" | "ceil" | "floor" | "round" | "clamp" | "clamp_min" | "clamp_max" | "sort" | "sort_desc"
        | "label_replace" | "label_join" | "max_of" | "min_of" => argument(0),
        "quantile_over_time" => argument(1),
        "histogram_quantile" => {
            let buckets = arguments.get(1)?.selectors();
            let of_buckets = |name: &str| {
                let base = name.strip_suffix("_bucket")?;
                of_metric(&format!("{base}_sum"), manifest)
            };
            let mut units = buckets
                .iter()
                .map(|selector| of_buckets(selector.name.as_ref()?.text.as_ref()));
            let first = units.next()??;
            units.all(|unit| unit == Some(first)).then_some(first)
        }
        "time" | "timestamp" => Some(Quantity::new(Unit::Timestamp, 1.0, false)),
        _ => None,
    }
}

fn of_binary(binary: &promql::ast::Binary, manifest: &Manifest) -> Option<Quantity> {
    let (left, right) = (of(&binary.left, manifest), of(&binary.right, manifest));
    let numbers = (binary.left.as_number(), binary.right.as_number());
    match binary.op {
        BinaryOp::Add | BinaryOp::Sub => match (left, right, numbers) {
            (Some(a), Some(b), _) if a.unit == Unit::Timestamp && b.unit == Unit::Timestamp => {
                let passed = a.same(b).filter(|_| binary.op == BinaryOp::Sub);
                passed.map(|of| Quantity {
                    unit: Unit::Seconds,
                    ..of
                })
            }
            (Some(a), Some(b), _) => a.same(b),
            (Some(a), None, (_, Some(_))) => (a.unit != Unit::Ratio).then_some(a),
            // One less a share is a share.
            (None, Some(b), (Some(_), _)) => Some(b),
            _ => None,
        },
        BinaryOp::Mul => match (left, right, numbers) {
            (Some(of), None, (_, Some(by))) | (None, Some(of), (Some(by), _)) => of.times(by),
            _ => None,
        },
        BinaryOp::Div => match (left, right, numbers) {
            (Some(of), None, (_, Some(by))) => of.times(1.0 / by),
            (Some(a), Some(b), _) if a.unit == b.unit && a.rate == b.rate && a.unit != Unit::Timestamp => {
                // How many there are of one thing for one of another is no share.
                (a.unit != Unit::One).then_some(Quantity {
                    unit: Unit::Ratio,
                    factor: a.factor / b.factor,
                    rate: false,
                    guessed: a.guessed || b.guessed,
                })
            }
            _ => None,
        },
        op if op.is_comparison() => {
            if binary.returns_bool.is_some() {
                None
            } else {
                left
            }
        }
        BinaryOp::And | BinaryOp::Unless => left,
        BinaryOp::Or => match (left, right) {
            (Some(a), Some(b)) => a.same(b),
            (Some(of), None) | (None, Some(of)) if numbers != (None, None) => Some(of),
            _ => None,
        },
        _ => None,
    }
}
