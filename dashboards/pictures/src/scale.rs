//! From values to places: linear and logarithmic scales, round ticks of numbers and of the clock. It draws nothing.

use jiff::Timestamp;

/// Values beyond this are drawn as if they were it, so that no difference overflows.
const HUGE: f64 = 1e300;

/// A value as it may be drawn; nothing where there is none.
pub(crate) fn tame(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(-HUGE, HUGE))
}

/// The least and the greatest of some values, where there are any.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter_map(tame).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// The same ends, apart far enough to be drawn.
pub(crate) fn spread((low, high): (f64, f64)) -> (f64, f64) {
    let least = (low.abs().max(high.abs()) * 1e-9).max(1e-12);
    if high - low > least {
        (low, high)
    } else if low == 0.0 {
        (0.0, 1.0)
    } else {
        let half = (low.abs() / 2.0).max(least);
        (low - half, low + half)
    }
}

/// A straight way from values to places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    /// From one pair of ends to another.
    pub fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        Self {
            from,
            to,
            logarithmic: false,
        }
    }

    /// The same in powers; ends that are not above zero leave it straight.
    pub fn logarithmic(mut self) -> Self {
        self.logarithmic = self.from.0 > 0.0;
        self
    }

    /// The place of a value; what is outside stands at the end.
    pub fn at(&self, value: f64) -> f64 {
        let way = |value: f64| {
            if self.logarithmic {
                value.max(self.from.0).ln()
            } else {
                value
            }
        };
        let (low, high) = (way(self.from.0), way(self.from.1));
        let part = ((way(value) - low) / (high - low)).clamp(0.0, 1.0);
        self.to.0 + part * (self.to.1 - self.to.0)
    }
}

/// Round values from `low` to at least `high`, about `count` of them.
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let count = count.clamp(1, 1000);
    let raw = (high - low) / count as f64;
    if !raw.is_finite() || raw <= 0.0 {
        return vec![low];
    }
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= raw * (1.0 - 1e-9))
        .unwrap_or(10.0 * power);
    let first = (low / step + 1e-9).floor();
    let mut ticks = Vec::new();
    for index in 0..=count * 3 + 2 {
        let tick = (first + index as f64) * step;
        ticks.push(tick);
        if tick >= high - 1e-9 * step {
            break;
        }
    }
    ticks
}

/// Whole powers of ten around a range above zero.
pub(crate) fn powers(low: f64, high: f64, most: usize) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let step = (last.saturating_sub(first) as usize / most.max(1) + 1).min(700);
    (first..=last).step_by(step).map(|power| 10_f64.powi(power)).collect()
}

const SECOND: i64 = 1;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// What a clock or a calendar calls round.
const ROUND: [i64; 22] = [
    1,
    2,
    5,
    10,
    15,
    30,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    28 * DAY,
    364 * DAY,
];

/// Round moments inside of a span of seconds since 1970, at most so many, each as the clock says it in UTC.
pub(crate) fn moments(from: f64, to: f64, most: usize) -> Vec<(f64, String)> {
    let span = to - from;
    let most = most.max(1);
    let step = ROUND
        .into_iter()
        .find(|step| span / *step as f64 <= most as f64)
        .unwrap_or_else(|| (span / most as f64).min(1e15) as i64 + 1);
    let form = match step {
        ..MINUTE => "%H:%M:%S",
        MINUTE..DAY if span > DAY as f64 => "%m-%d %H:%M",
        MINUTE..DAY => "%H:%M",
        DAY.. if span > 400.0 * DAY as f64 => "%Y-%m-%d",
        _ => "%m-%d",
    };
    let first = (from / step as f64).ceil();
    (0..=most)
        .map(|index| (first + index as f64) * step as f64)
        .take_while(|moment| *moment <= to)
        .filter_map(|moment| Some((moment, clock(moment, form)?)))
        .collect()
}

fn clock(seconds: f64, form: &str) -> Option<String> {
    let moment = Timestamp::from_second(seconds as i64).ok()?;
    Some(moment.strftime(form).to_string())
}

/// A moment in seconds since 1970 in full, to the second, in UTC.
pub fn moment(seconds: f64) -> String {
    clock(seconds, "%Y-%m-%d %H:%M:%S").unwrap_or_else(|| "no moment".to_owned())
}
