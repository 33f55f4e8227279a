//! The two texts that are scraped: OpenMetrics 1.0 and the classic format 0.0.4. What is in them is decided elsewhere.
//! Sources: <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

use catalogue::{Kind, Metric, Unit};

use super::family::{Family, Series, Value};
use super::value::{Histogram, Seen};

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// What every scraper reads: counters' families have `_total` in their names.
    Classic,
    /// With units, `# EOF`, and exemplars if they are wanted.
    OpenMetrics {
        /// Whether histograms show traces.
        exemplars: bool,
    },
}

/// The labels of a series as they stand between the braces.
pub(crate) fn labels(metric: &Metric, values: &[&str]) -> String {
    let mut out = String::with_capacity(48);
    for (label, value) in metric.labels.iter().zip(values) {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(label.name);
        out.push_str("=\"");
        escape(&mut out, value, true);
        out.push('"');
    }
    out
}

/// Writes all families that have series.
pub(crate) fn write<'a>(out: &mut String, families: impl Iterator<Item = &'a Family>, format: Format) {
    for family in families {
        write_family(out, family, format);
    }
    if format != Format::Classic {
        out.push_str("# EOF\n");
    }
}

fn write_family(out: &mut String, family: &Family, format: Format) {
    let all = family.read();
    if all.is_empty() {
        return;
    }
    let metric = family.metric;
    head(out, metric, format);
    let bounds = (metric.kind == Kind::Histogram).then(|| bounds(metric.buckets));
    for (labels, Series { value, .. }) in &*all {
        match value {
            Value::Counter(counter) => {
                name(out, metric.name, "", labels);
                match counter.whole() {
                    // Writing to a string cannot fail.
                    Some(count) => drop(write!(out, "{count}")),
                    None => number(out, counter.get()),
                }
                out.push('\n');
            }
            Value::Gauge(gauge) => {
                name(out, metric.name, "", labels);
                number(out, gauge.get());
                out.push('\n');
            }
            Value::Histogram(histogram) => {
                let bounds = bounds.as_deref().unwrap_or_default();
                write_histogram(out, metric.name, labels, histogram, bounds, format);
            }
        }
    }
}

fn head(out: &mut String, metric: &Metric, format: Format) {
    // OpenMetrics names a counter's family without the suffix of its samples.
    let family = match format {
        Format::Classic => metric.name,
        Format::OpenMetrics { .. } => metric.name.strip_suffix("_total").unwrap_or(metric.name),
    };
    let _ = write!(out, "# HELP {family} ");
    escape(out, metric.help, format != Format::Classic);
    let _ = write!(out, "\n# TYPE {family} {}\n", metric.kind.as_str());
    if format != Format::Classic && metric.unit != Unit::One {
        let _ = writeln!(out, "# UNIT {family} {}", metric.unit.as_str());
    }
}

/// The ends of the names of a histogram's buckets, `le="0.5"} ` and so on. Both formats have the same, so that a series
/// does not change its name with what a scraper asks for.
fn bounds(bounds: &[f64]) -> Vec<String> {
    let finite = bounds.iter().map(|bound| format!("le=\"{bound:?}\"}} "));
    finite.chain(std::iter::once("le=\"+Inf\"} ".to_owned())).collect()
}

fn write_histogram(
    out: &mut String,
    metric: &str,
    labels: &str,
    histogram: &Histogram,
    bounds: &[String],
    format: Format,
) {
    let observed = histogram.observed();
    let mut total = 0;
    for (index, (count, bound)) in observed.counts.iter().zip(bounds).enumerate() {
        total += count;
        out.push_str(metric);
        out.push_str("_bucket{");
        if !labels.is_empty() {
            out.push_str(labels);
            out.push(',');
        }
        out.push_str(bound);
        let _ = write!(out, "{total}");
        if format == (Format::OpenMetrics { exemplars: true })
            && let Some(Some(seen)) = observed.exemplars.get(index)
        {
            exemplar(out, seen);
        }
        out.push('\n');
    }
    name(out, metric, "_sum", labels);
    number(out, observed.sum);
    out.push('\n');
    name(out, metric, "_count", labels);
    let _ = writeln!(out, "{total}");
}

fn exemplar(out: &mut String, seen: &Seen) {
    let _ = write!(
        out,
        " # {{trace_id=\"{}\",span_id=\"{}\"}} ",
        seen.exemplar.trace_id(),
        seen.exemplar.span_id()
    );
    number(out, seen.value);
    let _ = write!(out, " {}.{:03}", seen.at_millis / 1000, seen.at_millis % 1000);
}

/// Name, suffix and labels of a sample, up to its value.
fn name(out: &mut String, metric: &str, suffix: &str, labels: &str) {
    out.push_str(metric);
    out.push_str(suffix);
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    out.push(' ');
}

fn number(out: &mut String, value: f64) {
    // Writing to a string cannot fail.
    let _ = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' })
    } else if value != 0.0 && !(1e-6..1e17).contains(&value.abs()) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
}

/// Appends text with the escapes of both formats; quotes are escaped where `quotes` says so.
fn escape(out: &mut String, text: &str, quotes: bool) {
    if !text.contains(['\\', '\n', '"']) {
        out.push_str(text);
        return;
    }
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}
