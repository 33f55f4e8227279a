//! What a line looks like, whatever is logged: one JSON object on one line, every key once, nothing secret, bounded; and
//! how many lines one place may write.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/kept.rs"]
mod kept;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use kept::Kept;
use proptest::prelude::*;
use serde_json::{Map, Value};
use telemetry::{LogFormat, Settings, Telemetry, TelemetryBuilder};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

const LONG: Duration = Duration::from_secs(30);

/// What `log` makes of lines, as they are written.
fn written(change: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder, log: impl FnOnce()) -> String {
    let kept = Kept::default();
    let builder = Telemetry::builder("shop").environment("test").log_writer(kept.clone());
    let (layers, telemetry) = change(builder).layers().unwrap();
    tracing::subscriber::with_default(registry().with(layers), log);
    assert!(telemetry.shutdown_blocking(LONG).is_lossless());
    kept.text()
}

/// The keys and values of a line, each key once.
fn parsed(line: &str) -> Map<String, Value> {
    /// Refuses a key that is there twice, which `Map` would hide.
    struct Once(Map<String, Value>);
    impl<'de> serde::Deserialize<'de> for Once {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> serde::de::Visitor<'de> for Visit {
                type Value = Once;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                    let mut once = Map::new();
                    while let Some((key, value)) = map.next_entry::<String, Value>()? {
                        assert!(once.insert(key.clone(), value).is_none(), "{key} is there twice");
                    }
                    Ok(Once(once))
                }
            }
            deserializer.deserialize_map(Visit)
        }
    }
    let once: Once = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    once.0
}

fn lines(text: &str) -> Vec<Map<String, Value>> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(parsed).collect()
}

#[test]
fn keys_come_in_a_fixed_order() {
    let text = written(
        |builder| builder,
        || {
            let _outer = tracing::info_span!("outer", order = 7, user = "ann").entered();
            let _inner = tracing::info_span!("inner", step = "pay", user = "bob").entered();
            tracing::warn!(target: "shop::pay", amount = 1250, "charged {}", "twice");
        },
    );
    let keys: Vec<String> = lines(&text)[0].keys().cloned().collect();
    let ids = ["trace_id", "span_id", "trace_flags"];
    let head = ["timestamp", "level", "message", "target", "service", "env"];
    assert_eq!(keys[..6], head);
    assert_eq!(keys[6..9], ids);
    assert_eq!(keys[9..], ["amount", "step", "user", "order"]);
    let line = &lines(&text)[0];
    assert_eq!(
        (&line["level"], &line["message"], &line["target"]),
        (&"WARN".into(), &"charged twice".into(), &"shop::pay".into())
    );
    assert_eq!((&line["service"], &line["env"]), (&"shop".into(), &"test".into()));
    assert_eq!(line["user"], "bob", "the inner span wins over the outer one");
    let stamp = line["timestamp"].as_str().unwrap();
    assert_eq!(stamp.len(), "2026-01-02T03:04:05.000000006Z".len(), "{stamp}");
}

#[test]
fn values_of_all_kinds_are_what_they_were() {
    let error = std::io::Error::other("disk");
    let chain = Outer(error);
    let text = written(
        |builder| builder,
        || {
            tracing::info!(
                whole = -7_i64,
                large = u64::MAX,
                larger = u128::MAX,
                ratio = 0.25,
                tiny = 1e-300,
                huge = 1e300,
                nan = f64::NAN,
                yes = true,
                debug = ?vec![Some("a"), None],
                display = %"b c",
                error = &chain as &dyn std::error::Error,
                r#type = "raw",
                "dotted.name" = 1,
                none = tracing::field::Empty,
                "m"
            );
        },
    );
    let line = &lines(&text)[0];
    assert_eq!(line["whole"], -7);
    assert_eq!(line["large"], u64::MAX);
    assert_eq!(
        line["larger"],
        u128::MAX.to_string(),
        "text, since readers would round it"
    );
    assert_eq!(
        (&line["ratio"], &line["tiny"], &line["huge"]),
        (&0.25.into(), &1e-300.into(), &1e300.into())
    );
    assert_eq!((&line["nan"], &line["yes"]), (&"NaN".into(), &true.into()));
    assert_eq!(line["debug"], r#"[Some("a"), None]"#);
    assert_eq!(line["display"], "b c");
    assert_eq!(line["error"], "charge: disk", "with what caused it");
    assert_eq!((&line["type"], &line["dotted.name"]), (&"raw".into(), &1.into()));
    assert!(!line.contains_key("none"));
}

#[derive(Debug)]
struct Outer(std::io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("charge")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn what_is_long_is_cut_and_marked() {
    let long = "ä".repeat(10_000);
    let text = written(
        |builder| builder,
        || {
            tracing::info!(short = 1, "not long");
            tracing::info!(long, "m");
            tracing::info!("{long}");
            let _spans: Vec<_> = (0..30)
                .map(|number| tracing::info_span!("s", number, long).entered())
                .collect();
            tracing::info!(a = long, b = long, c = ?long, "m");
        },
    );
    let lines = lines(&text);
    assert!(!lines[0].contains_key("truncated"));
    assert_eq!(lines[1]["long"].as_str().unwrap().len(), 8 * 1024);
    assert_eq!(lines[1]["truncated"], true);
    assert_eq!(lines[2]["message"].as_str().unwrap().len(), 8 * 1024);
    assert_eq!(lines[2]["truncated"], true);
    assert_eq!(lines[3]["truncated"], true);
    assert!(text.lines().all(|line| line.len() < 128 * 1024));
}

#[test]
fn a_line_is_bounded_however_many_fields_there_are() {
    // Every byte becomes six: \u0001.
    let worst = "\u{1}".repeat(8 * 1024);
    let text = written(
        |builder| builder,
        || {
            let _a = tracing::info_span!("s", a = worst, b = worst, last = 1).entered();
            tracing::info!(c = worst, d = worst, kept = 2, "{worst}");
        },
    );
    let line = &lines(&text)[0];
    assert!(text.len() <= 128 * 1024, "{}", text.len());
    assert_eq!(
        (&line["truncated"], &line["kept"], &line["last"]),
        (&true.into(), &2.into(), &1.into())
    );
    assert!(
        !line.contains_key("d") && !line.contains_key("a"),
        "what does not fit is left out whole"
    );
}

#[test]
fn a_span_can_record_later_and_again() {
    let text = written(
        |builder| builder,
        || {
            let span = tracing::info_span!("s", a = 1, b = tracing::field::Empty, token = tracing::field::Empty);
            let _entered = span.enter();
            span.record("b", "x").record("a", 2).record("token", "hunter2");
            tracing::info!("m");
            let bare = tracing::info_span!(parent: None, "bare", c = tracing::field::Empty);
            bare.record("c", true);
            bare.in_scope(|| tracing::info!("n"));
        },
    );
    let lines = lines(&text);
    assert_eq!((&lines[0]["a"], &lines[0]["b"]), (&2.into(), &"x".into()));
    assert_eq!(lines[0]["token"], "[redacted]");
    assert_eq!(lines[1]["c"], true);
    assert!(!lines[1].contains_key("a"));
}

#[test]
fn an_event_of_another_span_has_the_fields_of_that_one() {
    let text = written(
        |builder| builder,
        || {
            let other = tracing::info_span!("other", who = "other");
            let _here = tracing::info_span!("here", who = "here").entered();
            tracing::info!(parent: &other, "m");
            tracing::info!(parent: None, "n");
        },
    );
    let lines = lines(&text);
    assert_eq!(lines[0]["who"], "other");
    assert!(!lines[1].contains_key("who") && !lines[1].contains_key("trace_id"));
}

#[test]
fn more_names_can_be_secret() {
    let text = written(
        |builder| builder.redact("iban"),
        || {
            tracing::info!(
                customer_IBAN = "DE02",
                password = 12,
                note = "x://a:b@c",
                "for x://d:e@f/ and b"
            );
        },
    );
    let line = &lines(&text)[0];
    assert_eq!(
        (&line["customer_IBAN"], &line["password"]),
        (&"[redacted]".into(), &"[redacted]".into())
    );
    assert_eq!(line["note"], "x://[redacted]@c");
    assert_eq!(line["message"], "for x://[redacted]@f/ and b");
}

#[test]
fn a_place_that_writes_too_much_is_quiet_and_says_so() {
    let mut settings = Settings::default();
    settings.log.lines_per_second = Some(5);
    let text = written(
        |builder| builder.settings(settings).environment("test"),
        || {
            for number in 0..100 {
                tracing::info!(number, "often");
            }
            tracing::warn!("seldom");
        },
    );
    let lines = lines(&text);
    let often = lines.iter().filter(|line| line["message"] == "often").count();
    let told: u64 = lines
        .iter()
        .filter_map(|line| line.get("suppressed")?.as_str()?.parse::<u64>().ok())
        .sum();
    assert_eq!(often as u64 + told, 100, "written or told");
    // A new second may have begun in between.
    assert!((5..=10).contains(&often), "{often}");
    let line = lines.iter().find(|line| line.contains_key("suppressed")).unwrap();
    assert_eq!(
        line["message"],
        format!("suppressed {} lines", line["suppressed"].as_str().unwrap())
    );
    assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"log".into()));
    assert!(line["place"].as_str().unwrap().contains("tests/log.rs:"), "{line:?}");
    assert!(lines.iter().any(|line| line["message"] == "seldom"), "another place");
}

#[test]
fn people_get_lines_for_people_if_they_want() {
    let mut settings = Settings::default();
    settings.log.format = LogFormat::Pretty;
    let text = written(
        |builder| builder.settings(settings),
        || tracing::info!(target: "shop", order = 7, note = "a\u{1b}[31m b", "created"),
    );
    let (time, rest) = text.split_once(' ').unwrap();
    assert_eq!(time.len(), "03:04:05.678".len());
    assert_eq!(rest, "INFO  shop: created order=7 note=\"a\\u001b[31m b\"\n");
}

proptest! {
    #[test]
    fn whatever_is_logged_is_one_line_with_every_key_once(
        message in "\\PC{0,20}|[\\x00-\\xff]{0,20}",
        value in "\\PC{0,20}|[\\x00-\\xff\"\\\\\u{2028}]{0,20}",
        number in any::<f64>(),
        deep in 0..4_usize,
    ) {
        let text = written(|builder| builder, || {
            let _spans: Vec<_> = (0..deep)
                .map(|depth| tracing::info_span!("s", value, depth, level = %value).entered())
                .collect();
            tracing::info!(value = ?value, number, timestamp = number, "field.level" = 1, message2 = value, "{}", message);
        });
        let lines = lines(&text);
        prop_assert_eq!(lines.len(), 1);
        let line = &lines[0];
        prop_assert_eq!(line["message"].as_str().unwrap(), &message);
        prop_assert_eq!(line["message2"].as_str().unwrap(), &value);
        prop_assert_eq!(line["level"].as_str().unwrap(), "INFO");
        prop_assert_eq!(line.contains_key("depth"), deep > 0);
        if number.is_finite() {
            // The parser is off by the last digit now and then.
            let written = line["number"].as_f64().unwrap();
            prop_assert!((written - number).abs() <= number.abs() * 1e-15, "{} for {}", written, number);
        }
        let keys: HashSet<&String> = line.keys().collect();
        prop_assert_eq!(keys.len(), line.len());
        prop_assert!(!text[..text.len() - 1].contains(|c: char| c.is_control()), "{:?}", text);
    }
}
