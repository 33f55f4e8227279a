//! Every metric that opsctl and the reference services export, declared once: name, kind, unit, labels, buckets, help.
//!
//! Services take a typed handle from [`list`] to `telemetry`'s registry, alert rules and dashboards are checked against
//! [`ALL`], and [`export_json`] hands the whole list to other tools. It is data: it counts nothing and depends on nothing.
//!
//! ```
//! // A handle carries how many labels it has, so that a forgotten label does not compile.
//! let handle: catalogue::Counter<2> = catalogue::SAGA_STEPS_TOTAL;
//! assert_eq!(handle.metric().name, "saga_steps_total");
//! assert_eq!(handle.metric().labels[0].name, "step");
//! assert!(catalogue::find("saga_steps_total").is_some());
//! assert!(catalogue::export_json().starts_with("{\"schema\":\"opsctl.catalogue/v1\""));
//! ```

pub mod list;

pub use list::*;

/// What a metric is and everything that a reader, a rule or a board must know about it.
///
/// There are no others than those of the list. Neither can a description be made elsewhere:
///
/// ```compile_fail,E0639
/// let own = catalogue::Metric { name: "own_total", ..*catalogue::PANICS_TOTAL.metric() };
/// ```
///
/// nor a handle from one, nor from a name:
///
/// ```compile_fail,E0423
/// let own = catalogue::Counter::<0>(catalogue::PANICS_TOTAL.metric());
/// ```
/// ```compile_fail,E0624
/// let own = catalogue::Counter::<0>::of(catalogue::PANICS_TOTAL.metric());
/// ```
///
/// nor is a metric of one kind, or a number of labels, taken for another:
///
/// ```compile_fail,E0308
/// let gauge: catalogue::Gauge<0> = catalogue::PANICS_TOTAL;
/// ```
/// ```compile_fail,E0308
/// let of_two_labels: catalogue::Counter<2> = catalogue::PANICS_TOTAL;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name as it is scraped: a counter's ends in `_total`, a unit other than one is the suffix before that.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// One sentence, shown as `# HELP`.
    pub help: &'static str,
    /// Labels in the order in which handles take their values.
    pub labels: &'static [Label],
    /// Upper bounds of a histogram's buckets, ascending, without `+Inf`; empty for the other kinds.
    pub buckets: &'static [f64],
    /// Whose number the value is.
    pub scope: Scope,
}

/// Whose number a value is: what replicas export may be added up, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The process's own.
    Instance,
    /// Of something that all replicas look at, such as rows of their database: a sum over replicas counts it for each.
    Shared,
}

/// What a value of a metric means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, restarts at zero with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by bucket.
    Histogram,
}

impl Kind {
    /// The word of the exposition format: `counter`, `gauge`, `histogram`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The unit of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count or a 0/1 state.
    One,
    /// Seconds.
    Seconds,
    /// Thousandths of a second: for names of others alone, ours are in seconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1.
    Ratio,
}

impl Unit {
    /// `one`, `seconds`, `milliseconds`, `bytes`, `ratio`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }
}

/// One label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Name of the label.
    pub name: &'static str,
    /// Values that it may take.
    pub values: Values,
}

/// Which values a label may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Exactly these; a handle with another value is refused and counted.
    Closed(&'static [&'static str]),
    /// As many as the program has of them (routes, checks, policies): never text from a request.
    Bounded,
}

impl Metric {
    /// Whether `value` may stand in label number `index`.
    pub fn allows(&self, index: usize, value: &str) -> bool {
        match self.labels.get(index) {
            None => false,
            Some(label) => match label.values {
                Values::Closed(values) => values.contains(&value),
                Values::Bounded => true,
            },
        }
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name<const LABELS: usize>(&'static Metric);

        impl<const LABELS: usize> $name<LABELS> {
            /// For the list alone: a handle whose number of labels is checked at compile time.
            const fn of(metric: &'static Metric) -> Self {
                assert!(metric.labels.len() == LABELS, "the handle's number of labels differs from the metric's");
                Self(metric)
            }

            /// The entry that the handle stands for.
            pub const fn metric(self) -> &'static Metric {
                self.0
            }
        }
    };
}

handle!(
    /// Handle of a counter with `LABELS` labels.
    Counter
);
handle!(
    /// Handle of a gauge with `LABELS` labels.
    Gauge
);
handle!(
    /// Handle of a histogram with `LABELS` labels.
    Histogram
);

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().copied().find(|metric| metric.name == name)
}

/// The whole list as one JSON document, schema `opsctl.catalogue/v1`, a metric a line.
pub fn export_json() -> String {
    let mut out = String::from("{\"schema\":\"opsctl.catalogue/v1\",\"metrics\":[");
    for (index, metric) in ALL.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str("\n{\"name\":");
        string(&mut out, metric.name);
        out.push_str(",\"kind\":");
        string(&mut out, metric.kind.as_str());
        out.push_str(",\"unit\":");
        string(&mut out, metric.unit.as_str());
        out.push_str(",\"help\":");
        string(&mut out, metric.help);
        out.push_str(",\"labels\":[");
        for (index, label) in metric.labels.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str("{\"name\":");
            string(&mut out, label.name);
            if let Values::Closed(values) = label.values {
                out.push_str(",\"values\":[");
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    string(&mut out, value);
                }
                out.push(']');
            }
            out.push('}');
        }
        out.push(']');
        if !metric.buckets.is_empty() {
            out.push_str(",\"buckets\":[");
            for (index, bound) in metric.buckets.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&bound.to_string());
            }
            out.push(']');
        }
        if metric.scope == Scope::Shared {
            out.push_str(",\"scope\":\"shared\"");
        }
        out.push('}');
    }
    out.push_str("\n]}\n");
    out
}

/// Appends `text` as a JSON string.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if (control as u32) < 0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(HEX[(control as usize) >> 4] as char);
                out.push(HEX[(control as usize) & 15] as char);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
