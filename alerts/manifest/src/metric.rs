//! What is known of one metric. Where it is known from is `source`; how it is found by a series' name is `lib.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One metric and everything that a rule or a board must know about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The name as it is scraped, for histograms and summaries without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// Counter, gauge, histogram and so on.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// `# HELP`, empty where nobody said.
    pub help: String,
    /// Labels that the program puts on it. Those of scraping (`job`, `instance`) are not among them.
    pub labels: Vec<Label>,
    /// Whether the program puts no labels on it but `labels`. A capture or another server's answer cannot say so.
    pub complete: bool,
    /// Upper bounds of a histogram's buckets, ascending, without `+Inf`; empty where they are not known.
    pub buckets: Vec<f64>,
    /// Whether every replica exports its own number or all the same one.
    pub scope: Scope,
    /// Who says all that.
    pub source: Source,
}

/// What a value of a metric means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only grows, restarts at zero with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by bucket.
    Histogram,
    /// Quantiles computed by the program.
    Summary,
    /// Always 1; the labels are what it says.
    Info,
    /// One series per state, 1 for those that hold.
    StateSet,
    /// Nobody said.
    Unknown,
}

impl Kind {
    /// `counter`, `gauge`, `histogram`, `summary`, `info`, `stateset`, `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}

/// The unit of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A count or a 0/1 state.
    One,
    /// Seconds that something took or is old.
    Seconds,
    /// A moment: seconds since 1970. Compared with `time()`, never with an age.
    Timestamp,
    /// Thousandths of a second.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1.
    Ratio,
    /// Nobody said.
    Unknown,
}

/// Words of names that make a unit at the end doubtful.
const MEASURES: &[&str] = &[
    "per",
    "seconds",
    "milliseconds",
    "millis",
    "ms",
    "microseconds",
    "usecs",
    "us",
    "nanoseconds",
    "ns",
    "bytes",
    "kbytes",
    "kb",
    "kib",
    "mbytes",
    "mb",
    "mib",
    "gbytes",
    "gb",
    "gib",
    "bits",
    "pages",
    "blocks",
    "percent",
    "ratio",
];

impl Unit {
    /// The unit that a name tells by its suffix.
    pub fn of_name(name: &str) -> Self {
        let stem = name.strip_suffix("_total").unwrap_or(name);
        let is_moment = stem.ends_with("timestamp_seconds")
            || stem.ends_with("_start_time_seconds")
            || stem.ends_with("_time_seconds") && stem.contains("boot")
            || stem.ends_with("_seconds") && ["unix_time", "unixtime", "epoch"].iter().any(|of| stem.contains(of))
            || stem.ends_with("_created");
        if is_moment {
            return Self::Timestamp;
        }
        let mut words = stem.split('_');
        let unit = match words.next_back() {
            Some("seconds") => Self::Seconds,
            Some("milliseconds") => Self::Milliseconds,
            Some("bytes") => Self::Bytes,
            Some("ratio") => Self::Ratio,
            _ => Self::Unknown,
        };
        // `rate_kb_per_seconds`, `kbytes_out_bytes`: what another unit or `per` stands before is in neither of both.
        if words.any(|word| MEASURES.contains(&word)) {
            Self::Unknown
        } else {
            unit
        }
    }

    /// `one`, `seconds`, `timestamp`, `milliseconds`, `bytes`, `ratio`, `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Seconds => "seconds",
            Self::Timestamp => "timestamp",
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
            Self::Unknown => "unknown",
        }
    }
}

/// One label of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Name of the label.
    pub name: String,
    /// Values that it may take.
    pub values: Values,
    /// Whether there are series without it, or with nothing in it.
    pub optional: bool,
}

/// Which values a label may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// Exactly these.
    Closed(Vec<String>),
    /// As many as the program has of them, not known here.
    Bounded,
    /// These were seen; there may be others.
    Seen(Vec<String>),
}

/// Whose number a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The process's own: replicas are added up.
    #[default]
    Instance,
    /// Of something that all replicas look at, such as rows of a database: a sum counts it once per replica.
    Shared,
}

/// Who says what a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The list that the services are compiled with.
    Catalogue,
    /// What is known here of a common exporter: its name.
    Exporter(String),
    /// A capture of `/metrics`: its file or address. It proves presence, not absence.
    Capture(String),
    /// A live Prometheus: its address.
    Live(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue => f.write_str("the catalogue"),
            Self::Exporter(name) => write!(f, "the built-in manifest of {name}"),
            Self::Capture(file) => write!(f, "the capture {file}"),
            Self::Live(address) => write!(f, "the Prometheus at {address}"),
        }
    }
}

/// Which of a metric's series a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The metric itself: of a counter or gauge its value, of a summary its quantiles, of a histogram a native one.
    Value,
    /// A histogram's buckets, labelled `le`.
    Bucket,
    /// The sum of what was observed.
    Sum,
    /// How many observations there were.
    Count,
}

impl Part {
    /// The suffixes of the parts that have one.
    pub const SUFFIXES: [(&'static str, Self); 3] =
        [("_bucket", Self::Bucket), ("_sum", Self::Sum), ("_count", Self::Count)];
}

impl Metric {
    /// A metric of which nothing is known but where its name was found.
    pub fn new(name: impl Into<String>, kind: Kind, source: Source) -> Self {
        let name = name.into();
        Self {
            unit: Unit::of_name(&name),
            name,
            kind,
            help: String::new(),
            labels: Vec::new(),
            complete: false,
            buckets: Vec::new(),
            scope: Scope::Instance,
            source,
        }
    }

    /// The label of that name.
    pub fn label(&self, name: &str) -> Option<&Label> {
        self.labels.iter().find(|label| label.name == name)
    }

    /// Whether the metric has such a part.
    pub fn has(&self, part: Part) -> bool {
        match part {
            Part::Value => true,
            Part::Bucket => self.kind == Kind::Histogram,
            Part::Sum | Part::Count => matches!(self.kind, Kind::Histogram | Kind::Summary),
        }
    }

    /// Whether a part of it only grows.
    pub fn is_cumulative(&self, part: Part) -> bool {
        match part {
            Part::Value => self.kind == Kind::Counter,
            Part::Bucket | Part::Count | Part::Sum => true,
        }
    }

    /// The names that its series have in a Prometheus.
    pub fn series(&self) -> Vec<String> {
        let parts: &[&str] = match self.kind {
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Summary => &["", "_sum", "_count"],
            _ => &[""],
        };
        parts.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }

    /// Adds what another source knows. A declaration wins over what was only seen.
    pub(crate) fn learn(&mut self, other: Self) {
        if self.complete && !other.complete {
            if self.buckets.is_empty() {
                self.buckets = other.buckets;
            }
            return;
        }
        if other.complete && !self.complete {
            *self = other;
            return;
        }
        if self.kind == Kind::Unknown {
            self.kind = other.kind;
        }
        if self.unit == Unit::Unknown {
            self.unit = other.unit;
        }
        if self.help.is_empty() {
            self.help = other.help;
        }
        for bound in other.buckets {
            if !self.buckets.contains(&bound) {
                self.buckets.push(bound);
            }
        }
        self.buckets.sort_by(f64::total_cmp);
        for label in other.labels {
            match self.labels.iter_mut().find(|known| known.name == label.name) {
                None => self.labels.push(label),
                Some(known) => {
                    known.values.learn(label.values);
                    known.optional |= label.optional;
                }
            }
        }
    }
}

impl Values {
    fn learn(&mut self, other: Self) {
        let (Self::Closed(known) | Self::Seen(known), Self::Closed(more) | Self::Seen(more)) = (&mut *self, &other)
        else {
            *self = Self::Bounded;
            return;
        };
        for value in more {
            if !known.contains(value) {
                known.push(value.clone());
            }
        }
        if let (Self::Closed(known), Self::Seen(_)) = (&mut *self, other) {
            *self = Self::Seen(std::mem::take(known));
        }
    }
}
