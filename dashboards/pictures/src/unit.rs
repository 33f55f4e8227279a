//! Units of values and how they are written: few digits, a prefix that fits, the same one along an axis. The ids are those
//! of Grafana. It measures nothing.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::scale;

/// A factor and what is written for it.
type Step = (f64, &'static str);

const ONE: &[Step] = &[(1.0, "")];
const SI: &[Step] = &[
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
    (1e12, "T"),
    (1e15, "P"),
    (1e18, "E"),
];
const FINE: &[Step] = &[
    (1e-9, "n"),
    (1e-6, "µ"),
    (1e-3, "m"),
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
];
const IEC: &[Step] = &[
    (1.0, ""),
    (1024.0, "Ki"),
    (1_048_576.0, "Mi"),
    (1_073_741_824.0, "Gi"),
    (1_099_511_627_776.0, "Ti"),
    (1_125_899_906_842_624.0, "Pi"),
    (1_152_921_504_606_846_976.0, "Ei"),
];
const TIME: &[Step] = &[
    (1e-9, "ns"),
    (1e-6, "µs"),
    (1e-3, "ms"),
    (1.0, "s"),
    (60.0, "min"),
    (3600.0, "h"),
    (86_400.0, "d"),
    (31_536_000.0, "y"),
];

/// Grafana's id, the steps, how much of the first unit one of it is, what is written behind.
type Row = (&'static str, &'static [Step], f64, &'static str);

const UNITS: &[Row] = &[
    ("none", ONE, 1.0, ""),
    ("string", ONE, 1.0, ""),
    ("locale", ONE, 1.0, ""),
    ("short", SI, 1.0, ""),
    ("sishort", FINE, 1.0, ""),
    ("percent", ONE, 1.0, "%"),
    ("percentunit", ONE, 100.0, "%"),
    ("ns", TIME, 1e-9, ""),
    ("µs", TIME, 1e-6, ""),
    ("us", TIME, 1e-6, ""),
    ("ms", TIME, 1e-3, ""),
    ("s", TIME, 1.0, ""),
    ("m", TIME, 60.0, ""),
    ("h", TIME, 3600.0, ""),
    ("d", TIME, 86_400.0, ""),
    ("dtdurations", TIME, 1.0, ""),
    ("dtdurationms", TIME, 1e-3, ""),
    ("clocks", TIME, 1.0, ""),
    ("clockms", TIME, 1e-3, ""),
    ("bytes", IEC, 1.0, "B"),
    ("kbytes", IEC, 1024.0, "B"),
    ("mbytes", IEC, 1_048_576.0, "B"),
    ("gbytes", IEC, 1_073_741_824.0, "B"),
    ("decbytes", SI, 1.0, "B"),
    ("deckbytes", SI, 1e3, "B"),
    ("decmbytes", SI, 1e6, "B"),
    ("decgbytes", SI, 1e9, "B"),
    ("bits", IEC, 1.0, "b"),
    ("decbits", SI, 1.0, "b"),
    ("Bps", SI, 1.0, "B/s"),
    ("KBs", SI, 1e3, "B/s"),
    ("MBs", SI, 1e6, "B/s"),
    ("binBps", IEC, 1.0, "B/s"),
    ("bps", SI, 1.0, "b/s"),
    ("binbps", IEC, 1.0, "b/s"),
    ("pps", SI, 1.0, "p/s"),
    ("ops", SI, 1.0, "ops/s"),
    ("opm", SI, 1.0, "ops/min"),
    ("reqps", SI, 1.0, "req/s"),
    ("reqpm", SI, 1.0, "req/min"),
    ("rps", SI, 1.0, "rd/s"),
    ("wps", SI, 1.0, "wr/s"),
    ("iops", SI, 1.0, "io/s"),
    ("cps", SI, 1.0, "c/s"),
    ("cpm", SI, 1.0, "c/min"),
    ("eps", SI, 1.0, "evt/s"),
    ("mps", SI, 1.0, "msg/s"),
    ("hertz", SI, 1.0, "Hz"),
    ("rotrpm", SI, 1.0, "rpm"),
    ("watt", FINE, 1.0, "W"),
    ("volt", FINE, 1.0, "V"),
    ("amp", FINE, 1.0, "A"),
    ("joule", SI, 1.0, "J"),
    ("celsius", ONE, 1.0, "°C"),
    ("fahrenheit", ONE, 1.0, "°F"),
    ("humidity", ONE, 1.0, "%H"),
    ("dBm", ONE, 1.0, "dBm"),
    ("currencyUSD", SI, 1.0, "$"),
    ("currencyEUR", SI, 1.0, "€"),
];

/// What values are counted in.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Number {
        steps: &'static [Step],
        factor: f64,
        suffix: Cow<'static, str>,
    },
    /// Zero and everything else.
    Words(&'static str, &'static str),
    /// Milliseconds since 1970.
    Moment,
}

impl Default for Unit {
    fn default() -> Self {
        Self::named("short")
    }
}

impl Unit {
    /// A unit by Grafana's id. What is no known id is written behind the number as it is.
    pub fn named(id: &str) -> Self {
        if let Some((_, steps, factor, suffix)) = UNITS.iter().find(|row| row.0 == id) {
            return Self(Kind::Number {
                steps,
                factor: *factor,
                suffix: Cow::Borrowed(suffix),
            });
        }
        Self(match id {
            "" => return Self::default(),
            "bool" => Kind::Words("false", "true"),
            "bool_yes_no" => Kind::Words("no", "yes"),
            "bool_on_off" => Kind::Words("off", "on"),
            _ if id.starts_with("dateTime") => Kind::Moment,
            _ => {
                let own = id.strip_prefix("suffix:").unwrap_or(id);
                Kind::Number {
                    steps: SI,
                    factor: 1.0,
                    suffix: own.trim().chars().take(16).collect::<String>().into(),
                }
            }
        })
    }

    /// A value as text, with about three digits or with so many decimals.
    pub fn format(&self, value: f64, decimals: Option<u8>) -> String {
        if value.is_nan() {
            return "no value".to_owned();
        }
        if value.is_infinite() {
            return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
        }
        match &self.0 {
            Kind::Words(zero, other) => if value == 0.0 { *zero } else { *other }.to_owned(),
            Kind::Moment => moment(value),
            Kind::Number { steps, factor, suffix } => {
                let value = value * factor;
                let step = step_for(steps, value.abs());
                let scaled = value / step.0;
                let number = match decimals {
                    Some(count) => fixed(scaled, usize::from(count.min(9))),
                    None => short(scaled),
                };
                join(&number, step.1, suffix)
            }
        }
    }

    /// Round values from `low` to at least `high`, about `count` of them, each with its text: all with one prefix.
    pub fn ticks(&self, low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
        let Kind::Number { steps, factor, suffix } = &self.0 else {
            let ticks = scale::ticks(low, high, count);
            return ticks.into_iter().map(|tick| (tick, self.format(tick, None))).collect();
        };
        let step = step_for(steps, low.abs().max(high.abs()) * factor);
        let one = step.0 / factor;
        let ticks = scale::ticks(low / one, high / one, count);
        let apart = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::MAX, f64::min);
        let round = |decimals: i32| {
            let power = 10_f64.powi(decimals);
            ticks
                .iter()
                .all(|tick| ((tick * power).round() / power - tick).abs() <= apart * 1e-3)
        };
        let decimals = (0..9).find(|decimals| round(*decimals)).unwrap_or(9);
        let written = |tick: f64| {
            if tick.abs() >= 1e15 {
                short(tick)
            } else {
                fixed(tick, decimals as usize)
            }
        };
        let text = |tick: f64| match tick {
            0.0 => "0".to_owned(),
            _ => join(&written(tick), step.1, suffix),
        };
        ticks.iter().map(|tick| (tick * one, text(*tick))).collect()
    }
}

/// The largest step that a value reaches.
fn step_for(steps: &'static [Step], value: f64) -> Step {
    let reached = steps.iter().rev().find(|step| value >= step.0);
    // Nothing is nothing of the whole unit, not of its smallest part.
    let whole = || steps.iter().find(|step| step.0 >= 1.0);
    let smallest = if value == 0.0 { whole() } else { steps.first() };
    reached.or(smallest).copied().unwrap_or((1.0, ""))
}

fn join(number: &str, prefix: &str, suffix: &str) -> String {
    match (prefix, suffix) {
        ("", "") => number.to_owned(),
        ("", "%" | "°C" | "°F") => format!("{number}{suffix}"),
        // A prefix alone is part of the number.
        ("k" | "M" | "G" | "T" | "P" | "E" | "m" | "µ" | "n", "") => format!("{number}{prefix}"),
        _ => format!("{number}\u{a0}{prefix}{suffix}"),
    }
}

/// A number with about three digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        return sign(&format!("{value:.2e}"));
    }
    let before = if size >= 1.0 { size.log10().floor() as i32 } else { -1 };
    let decimals = match before {
        2.. => 0,
        0 | 1 => 2 - before,
        _ if size == 0.0 => 0,
        _ => (2 - size.log10().floor() as i32).min(8),
    };
    let text = format!("{value:.*}", decimals.max(0) as usize);
    if text.contains('.') {
        return sign(text.trim_end_matches('0').trim_end_matches('.'));
    }
    sign(&text)
}

fn fixed(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e15 {
        return short(value);
    }
    sign(&format!("{value:.decimals$}"))
}

/// With the sign that typesetters use, and without one before nothing.
fn sign(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.to_owned(),
        Some(_) => text.replace('-', "−"),
        None => text.replace("e-", "e−"),
    }
}

fn moment(milliseconds: f64) -> String {
    Timestamp::from_millisecond(milliseconds as i64).map_or_else(
        |_| "no moment".to_owned(),
        |moment| moment.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}
