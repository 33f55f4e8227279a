//! The registry as a message of OTLP: cumulative, under the names that are scraped. What it is sent with is `push`'s.
//! Source: <https://github.com/open-telemetry/opentelemetry-proto> (`metrics.proto`).

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as WireExemplar, Gauge, Histogram, HistogramDataPoint, Metric as WireMetric,
    NumberDataPoint, Sum, exemplar, metric::Data, number_data_point,
};

use catalogue::{Metric, Unit};

use super::family::{Family, Series, Value};
use super::value::{Observed, Seen};

/// When series began and when they are read, in nanoseconds of Unix time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// A metric with all its series, and how many points they are; `None` without any.
pub(super) fn metric(family: &Family, span: Span, exemplars: bool) -> Option<(WireMetric, u64)> {
    let all = family.read();
    let points = all.len() as u64;
    let mut numbers = Vec::new();
    let mut histograms = Vec::new();
    let mut is_counter = false;
    for series in all.values() {
        let attributes = attributes(family.metric, series);
        let number = |value| NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: span.start,
            time_unix_nano: span.now,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        match &series.value {
            Value::Counter(counter) => {
                is_counter = true;
                let whole = counter.whole().and_then(|count| i64::try_from(count).ok());
                let double = || number_data_point::Value::AsDouble(counter.get());
                numbers.push(number(whole.map_or_else(double, number_data_point::Value::AsInt)));
            }
            Value::Gauge(gauge) => numbers.push(number(number_data_point::Value::AsDouble(gauge.get()))),
            Value::Histogram(histogram) => {
                let observed = histogram.observed();
                histograms.push(point(attributes, histogram.bounds(), observed, span, exemplars));
            }
        }
    }
    let data = if !histograms.is_empty() {
        Data::Histogram(Histogram {
            data_points: histograms,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        })
    } else if is_counter {
        Data::Sum(Sum {
            data_points: numbers,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })
    } else if numbers.is_empty() {
        return None;
    } else {
        Data::Gauge(Gauge { data_points: numbers })
    };
    let metric = WireMetric {
        name: family.metric.name.to_owned(),
        description: family.metric.help.to_owned(),
        unit: unit(family.metric.unit).to_owned(),
        data: Some(data),
        ..WireMetric::default()
    };
    Some((metric, points))
}

fn attributes(metric: &Metric, series: &Series) -> Vec<KeyValue> {
    let pairs = metric.labels.iter().zip(&series.labels);
    pairs.map(|(label, value)| text(label.name, value)).collect()
}

/// An attribute.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn point(
    attributes: Vec<KeyValue>,
    bounds: &[f64],
    observed: Observed,
    span: Span,
    exemplars: bool,
) -> HistogramDataPoint {
    let seen = observed.exemplars.into_iter().flatten().filter(|_| exemplars);
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: span.start,
        time_unix_nano: span.now,
        count: observed.counts.iter().sum(),
        sum: Some(observed.sum),
        bucket_counts: observed.counts,
        explicit_bounds: bounds.to_vec(),
        exemplars: seen.map(|seen| wire_exemplar(&seen)).collect(),
        ..HistogramDataPoint::default()
    }
}

fn wire_exemplar(seen: &Seen) -> WireExemplar {
    WireExemplar {
        time_unix_nano: u64::try_from(seen.at_millis)
            .unwrap_or_default()
            .saturating_mul(1_000_000),
        trace_id: seen.exemplar.trace_bytes().to_vec(),
        span_id: seen.exemplar.span_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(seen.value)),
        ..WireExemplar::default()
    }
}

/// As UCUM has it. A receiver that appends units to names finds them there already.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::One | Unit::Ratio => "1",
        Unit::Seconds => "s",
        Unit::Milliseconds => "ms",
        Unit::Bytes => "By",
    }
}
