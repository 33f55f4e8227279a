//! What every entry of the list must keep, so that a line added in a hurry does not break scrapes, rules or boards.

use std::collections::HashSet;

use catalogue::{ALL, Kind, Unit, Values};

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn names_are_unique_and_follow_their_kind_and_unit() {
    let mut seen = HashSet::new();
    for metric in ALL {
        let name = metric.name;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(is_name(name), "{name}");
        assert_eq!(
            metric.kind == Kind::Counter,
            name.ends_with("_total"),
            "{name}: counters alone end in _total"
        );
        let stem = name.strip_suffix("_total").unwrap_or(name);
        for (unit, suffix) in [
            (Unit::Seconds, "_seconds"),
            (Unit::Bytes, "_bytes"),
            (Unit::Ratio, "_ratio"),
        ] {
            assert_eq!(
                metric.unit == unit,
                stem.ends_with(suffix),
                "{name}: its unit is its suffix"
            );
        }
        for reserved in ["_bucket", "_count", "_sum", "_created", "_info"] {
            assert!(
                !name.ends_with(reserved) || name == "build_info",
                "{name} looks like a part of another metric"
            );
        }
    }
}

#[test]
fn help_is_one_sentence() {
    for metric in ALL {
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('\n'),
            "{}",
            metric.name
        );
    }
}

#[test]
fn labels_are_names_and_closed_values_are_unique() {
    for metric in ALL {
        let mut names = HashSet::new();
        for label in metric.labels {
            assert!(
                is_name(label.name) && label.name != "le",
                "{}: {}",
                metric.name,
                label.name
            );
            assert!(names.insert(label.name), "{}: {} twice", metric.name, label.name);
            if let Values::Closed(values) = label.values {
                assert!(!values.is_empty(), "{}: {}", metric.name, label.name);
                let unique: HashSet<_> = values.iter().collect();
                assert_eq!(unique.len(), values.len(), "{}: {}", metric.name, label.name);
            }
        }
    }
}

#[test]
fn histograms_alone_have_buckets_and_they_rise() {
    for metric in ALL {
        assert_eq!(
            metric.kind == Kind::Histogram,
            !metric.buckets.is_empty(),
            "{}",
            metric.name
        );
        assert!(
            metric.buckets.windows(2).all(|pair| pair[0] < pair[1]),
            "{}",
            metric.name
        );
    }
}

#[test]
fn values_outside_a_closed_list_are_not_allowed() {
    let steps = catalogue::SAGA_STEPS_TOTAL.metric();
    assert!(steps.allows(0, "payment") && !steps.allows(0, "Payment") && !steps.allows(2, "payment"));
    assert!(catalogue::PROXY_IN_FLIGHT.metric().allows(0, "anything"));
    assert!(catalogue::find("nothing_total").is_none());
}
