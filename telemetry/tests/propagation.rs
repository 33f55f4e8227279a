//! What comes in and goes out in headers. The tables of `traceparent` and `tracestate` hold the cases of the W3C's own
//! conformance suite at its strictest level (<https://github.com/w3c/trace-context/blob/main/test/test.py>), driven
//! through a service's path: read, a span, written.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::{BTreeMap, HashMap};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use telemetry::propagation::{self, Baggage, CorrelationId, ReadHeaders as _, WriteHeaders as _};
use telemetry::{SpanExt as _, Telemetry};

const TRACE: &str = "12345678901234567890123456789012";
const VALID: &str = "00-12345678901234567890123456789012-1234567890123456-01";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    pairs.iter().map(pair).collect()
}

/// What a service that got `incoming` sends on, and what it refused.
fn through(incoming: &HeaderMap) -> (HeaderMap, Vec<&'static str>) {
    let extracted = propagation::extract(incoming);
    let span = extracted.scope(|| tracing::info_span!("request"));
    let mut outgoing = HeaderMap::new();
    span.in_scope(|| propagation::inject(&mut outgoing));
    (outgoing, extracted.refused)
}

fn trace_id(headers: &HeaderMap) -> String {
    let text = headers["traceparent"].to_str().unwrap();
    let parts: Vec<_> = text.split('-').collect();
    assert_eq!(
        parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2],
        "{text}"
    );
    assert_ne!(parts[2], "1234567890123456", "a span of its own");
    parts[1].to_owned()
}

#[test]
fn trace_parents_by_the_letter() {
    let _telemetry = Telemetry::test();
    let rest = "12345678901234567890123456789012-1234567890123456-01";
    for (value, inherited) in [
        (VALID.to_owned(), true),
        (VALID.replace("-01", "-00"), true),
        (VALID.replace("-01", "-ff"), true),
        // Version 00 has nothing behind; later ones may.
        (format!("{VALID}."), false),
        (format!("{VALID}-"), false),
        (format!("{VALID}-what-the-future-will-be-like"), false),
        (format!("cc-{rest}"), true),
        (format!("cc-{rest}-what-the-future-will-be-like"), true),
        (format!("cc-{rest}.what-the-future-will-be-like"), false),
        (format!("ff-{rest}"), false),
        (format!(".0-{rest}"), false),
        (format!("0.-{rest}"), false),
        (format!("000-{rest}"), false),
        (format!("0000-{rest}"), false),
        (format!("0-{rest}"), false),
        (
            "00-00000000000000000000000000000000-1234567890123456-01".to_owned(),
            false,
        ),
        (
            "00-.2345678901234567890123456789012-1234567890123456-01".to_owned(),
            false,
        ),
        (
            "00-1234567890123456789012345678901.-1234567890123456-01".to_owned(),
            false,
        ),
        (
            "00-123456789012345678901234567890123-1234567890123456-01".to_owned(),
            false,
        ),
        (
            "00-1234567890123456789012345678901-1234567890123456-01".to_owned(),
            false,
        ),
        (format!("00-{TRACE}-0000000000000000-01"), false),
        (format!("00-{TRACE}-.234567890123456-01"), false),
        (format!("00-{TRACE}-123456789012345.-01"), false),
        (format!("00-{TRACE}-12345678901234567-01"), false),
        (format!("00-{TRACE}-123456789012345-01"), false),
        (format!("00-{TRACE}-1234567890123456-.0"), false),
        (format!("00-{TRACE}-1234567890123456-0."), false),
        (format!("00-{TRACE}-1234567890123456-001"), false),
        (format!("00-{TRACE}-1234567890123456-1"), false),
        // Optional white space is not part of a value.
        (format!(" {VALID}"), true),
        (format!("\t{VALID}"), true),
        (format!("{VALID} "), true),
        (format!("\t {VALID} \t"), true),
        // What the crate opentelemetry takes and must not.
        ("00-1-1-01".to_owned(), false),
        (
            "00-+2345678901234567890123456789012-1234567890123456-01".to_owned(),
            false,
        ),
        (
            format!("00-{}-abcdefabcdefabcd-01", "ABCDEF0123456789ABCDEF0123456789"),
            false,
        ),
        (String::new(), false),
    ] {
        let (outgoing, refused) = through(&headers(&[("traceparent", &value)]));
        assert_eq!(trace_id(&outgoing) == TRACE, inherited, "{value:?}");
        assert_eq!(refused.is_empty(), inherited, "{value:?}: {refused:?}");
        assert!(refused.iter().all(|reason| *reason == "traceparent"), "{value:?}");
    }
    // One header, by this name in any case.
    let twice = [("traceparent", VALID), ("traceparent", &VALID.replace("12-", "11-"))];
    let (outgoing, refused) = through(&headers(&twice));
    assert!(!trace_id(&outgoing).starts_with("1234567890123456789012345678901") && refused == ["traceparent"]);
    for name in ["trace-parent", "trace.parent"] {
        assert_ne!(trace_id(&through(&headers(&[(name, VALID)])).0), TRACE, "{name}");
    }
    for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        assert_eq!(trace_id(&through(&headers(&[(name, VALID)])).0), TRACE, "{name}");
    }
    assert_ne!(trace_id(&through(&HeaderMap::new()).0), TRACE);
}

#[test]
fn trace_states_by_the_letter() {
    let _telemetry = Telemetry::test();
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (0x20..=0x7e_u8)
        .filter(|byte| !b",=".contains(byte))
        .map(char::from)
        .collect();
    let count = |members: usize| {
        (1..=members)
            .map(|n| format!("bar{n:02}={n:02}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let all = format!("{key}={value}");
    let all_of_vendor = format!("{key}@a-z0-9_-*/={value}");
    let (key_256, key_257) = (format!("{}=1", "z".repeat(256)), format!("{}=1", "z".repeat(257)));
    let tenant_241 = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
    let tenant_242 = format!("{}@v=1", "t".repeat(242));
    let system_15 = format!("t@{}=1", "v".repeat(15));
    let (value_256, value_257) = (format!("foo={}", "v".repeat(256)), format!("foo={}", "v".repeat(257)));
    let (count_32, count_33) = (count(32), count(33));
    let invalid = None;
    let cases: Vec<(Vec<&str>, Option<&str>)> = vec![
        (vec!["foo=1,bar=2"], Some("foo=1,bar=2")),
        (vec![""], Some("")),
        (vec!["foo=1", ""], Some("foo=1")),
        (vec!["", "foo=1"], Some("foo=1")),
        (
            vec!["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
            Some("foo=1,bar=2,rojo=1,congo=2,baz=3"),
        ),
        (vec!["foo=1,foo=1"], invalid),
        (vec!["foo=1,foo=2"], invalid),
        (vec!["foo=1", "foo=1"], invalid),
        (vec!["foo=1", "foo=2"], invalid),
        (vec![&all], Some(&all)),
        (vec![&all_of_vendor], Some(&all_of_vendor)),
        (vec!["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3")),
        (vec!["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], Some("foo=1,bar=2,baz=3")),
        (vec![" foo=1"], Some("foo=1")),
        (vec!["\tfoo=1"], Some("foo=1")),
        (vec!["foo=1 "], Some("foo=1")),
        (vec!["foo=1\t"], Some("foo=1")),
        (vec!["\t foo=1 \t"], Some("foo=1")),
        (vec!["foo =1"], invalid),
        (vec!["FOO=1"], invalid),
        (vec!["foo.bar=1"], invalid),
        (vec!["foo@=1,bar=2"], invalid),
        (vec!["@foo=1,bar=2"], invalid),
        (vec!["foo@@bar=1,bar=2"], invalid),
        (vec!["foo@bar@baz=1,bar=2"], invalid),
        (vec![&count_32], Some(&count_32)),
        (vec![&count_33], invalid),
        (vec!["foo=1", &key_256], Some("")),
        (vec!["foo=1", &key_257], invalid),
        (vec!["foo=1", &tenant_241], Some("")),
        (vec!["foo=1", &tenant_242], invalid),
        (vec!["foo=1", &system_15], invalid),
        (vec![&value_256], Some(&value_256)),
        (vec![&value_257], invalid),
        (vec!["foo=bar=baz"], invalid),
        (vec!["foo=,bar=3"], invalid),
        (vec!["foo"], invalid),
    ];
    for (values, wanted) in cases {
        let mut pairs = vec![("traceparent", VALID)];
        pairs.extend(values.iter().map(|value| ("tracestate", *value)));
        let (outgoing, refused) = through(&headers(&pairs));
        assert_eq!(
            trace_id(&outgoing),
            TRACE,
            "a bad tracestate does not break the trace: {values:?}"
        );
        let found = outgoing.get("tracestate").map(|value| value.to_str().unwrap());
        match wanted {
            None => assert_eq!((found, &refused[..]), (None, &["tracestate"][..]), "{values:?}"),
            // Long ones: that it is inherited is enough.
            Some("") if values.len() == 2 && values[0] == "foo=1" => assert!(found.unwrap().starts_with("foo=1,")),
            Some("") => assert_eq!((found, refused.len()), (None, 0), "{values:?}"),
            Some(wanted) => assert_eq!((found, refused.len()), (Some(wanted), 0), "{values:?}"),
        }
    }
    // Without a trace it means nothing, and above 8 KiB it is not passed on.
    assert!(
        through(&headers(&[("tracestate", "foo=1")]))
            .0
            .get("tracestate")
            .is_none()
    );
    let long: Vec<_> = (0..31).map(|n| format!("{n:a>30}={}", "v".repeat(256))).collect();
    let (outgoing, refused) = through(&headers(&[("traceparent", VALID), ("tracestate", &long.join(","))]));
    assert!(outgoing.get("tracestate").is_none() && refused == ["tracestate"]);
}

#[test]
fn each_call_of_a_request_is_a_span_of_its_trace() {
    let _telemetry = Telemetry::test();
    let extracted = propagation::extract(&headers(&[("traceparent", VALID)]));
    let request = extracted.scope(|| tracing::info_span!("request")).entered();
    let sent: Vec<HeaderMap> = (0..3)
        .map(|_| {
            let mut outgoing = HeaderMap::new();
            tracing::info_span!("call").in_scope(|| propagation::inject(&mut outgoing));
            outgoing
        })
        .collect();
    assert!(sent.iter().all(|headers| trace_id(headers) == TRACE));
    let mut parents: Vec<_> = sent.iter().map(|headers| &headers["traceparent"]).collect();
    parents.sort();
    parents.dedup();
    assert_eq!(parents.len(), 3);
    drop(request);
    // Outside of a request there is nothing to say.
    let mut none = HeaderMap::new();
    propagation::inject(&mut none);
    assert!(none.is_empty());
}

#[test]
fn an_unsampled_callers_decision_goes_on() {
    let telemetry = Telemetry::test();
    let (outgoing, _) = through(&headers(&[("traceparent", &VALID.replace("-01", "-00"))]));
    assert_eq!(trace_id(&outgoing), TRACE);
    assert!(outgoing["traceparent"].to_str().unwrap().ends_with("-00"));
    assert!(telemetry.spans().is_empty());
}

#[test]
fn baggage_goes_along_unless_it_is_malformed_or_long() {
    let _telemetry = Telemetry::test();
    let many = |members: usize| (0..members).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let (members_64, members_181) = (many(64), many(181));
    let long = format!("k={}", "v".repeat(9000));
    for (value, wanted) in [
        ("userId=alice", Some("userId=alice")),
        (" a=1 ,\tb=2;meta;x=y ", Some("a=1,b=2;meta;x=y")),
        ("a=%20%2C", Some("a=%20%2C")),
        ("a=", Some("a=")),
        (&members_64, Some(&*members_64)),
        ("", Some("")),
        ("novalue", None),
        ("=1", None),
        ("a b=1", None),
        ("a=1\"", None),
        ("a=ü", None),
        (&members_181, None),
        (&long, None),
    ] {
        let (outgoing, refused) = through(&headers(&[("baggage", value)]));
        let found = outgoing.get("baggage").map(|value| value.to_str().unwrap());
        match wanted {
            Some("") => assert_eq!((found, refused.len()), (None, 0), "{value}"),
            Some(wanted) => assert_eq!((found, refused.len()), (Some(wanted), 0), "{value}"),
            None => assert_eq!((found, &refused[..]), (None, &["baggage"][..]), "{value}"),
        }
    }
    let extracted = propagation::extract(&headers(&[("baggage", "tenant=shop%20one,plan=gold;ttl=1")]));
    extracted.scope(|| tracing::info_span!("request")).in_scope(|| {
        let baggage = Baggage::current().unwrap();
        assert_eq!(baggage.get("tenant").as_deref(), Some("shop one"));
        assert_eq!(baggage.get("plan").as_deref(), Some("gold"));
        assert_eq!(baggage.get("none"), None);
    });
}

#[test]
fn a_correlation_id_is_the_callers_or_new() {
    let telemetry = Telemetry::test();
    let longest = "x".repeat(128);
    for good in ["a", "Az09._:-", longest.as_str()] {
        let (outgoing, refused) = through(&headers(&[("X-Correlation-ID", good)]));
        assert_eq!(
            (outgoing["x-correlation-id"].to_str().unwrap(), refused.len()),
            (good, 0)
        );
    }
    let too_long = "x".repeat(129);
    for bad in ["", " ", "a b", "a\"b", "ä", too_long.as_str()] {
        let (outgoing, refused) = through(&headers(&[("x-correlation-id", bad)]));
        let made = outgoing["x-correlation-id"].to_str().unwrap();
        assert_eq!(refused, ["correlation_id"], "{bad:?}");
        assert_eq!(uuid::Uuid::parse_str(made).unwrap().get_version_num(), 7, "{made}");
    }
    let (_, refused) = through(&headers(&[("x-correlation-id", "a"), ("x-correlation-id", "b")]));
    assert_eq!(refused, ["correlation_id"]);
    // It is in each line below, also of spans inside and of an unsampled trace.
    for flags in ["00", "01"] {
        let parent = VALID.replace("-01", &format!("-{flags}"));
        let extracted = propagation::extract(&headers(&[("x-correlation-id", "c-1"), ("traceparent", &parent)]));
        let _request = extracted.scope(|| tracing::info_span!("request")).entered();
        let _inner = tracing::info_span!("inner").entered();
        tracing::info!("inside");
        assert_eq!(CorrelationId::current().unwrap().as_str(), "c-1");
        let line = telemetry.lines().pop().unwrap();
        assert_eq!(
            (&line["correlation_id"], &line["trace_id"]),
            (&"c-1".into(), &TRACE.into())
        );
        assert_eq!(line["trace_flags"], flags);
    }
}

#[test]
fn headers_of_every_kind_carry_the_same() {
    let _telemetry = Telemetry::test();
    let incoming = headers(&[
        ("traceparent", VALID),
        ("tracestate", "foo=1"),
        ("baggage", "a=1"),
        ("x-correlation-id", "c-1"),
    ]);
    let span = propagation::extract(&incoming).scope(|| tracing::info_span!("request"));
    let mut map: HashMap<String, String> = HashMap::new();
    let mut sorted: BTreeMap<String, String> = BTreeMap::from([("TraceParent".into(), "old".into())]);
    let mut list: Vec<(String, Vec<u8>)> = vec![("traceparent".into(), b"old".to_vec())];
    let mut metadata = tonic::metadata::MetadataMap::new();
    span.in_scope(|| {
        propagation::inject(&mut map);
        propagation::inject(&mut sorted);
        propagation::inject(&mut list);
        propagation::inject(&mut metadata);
    });
    let wanted = span.ids().unwrap();
    let check = |kind: &str, found: &propagation::Extracted| {
        let parent = found.parent.unwrap_or_else(|| panic!("{kind} lost the trace"));
        assert_eq!(
            (parent.trace_id, parent.span_id, parent.sampled),
            (wanted.trace_id, wanted.span_id, true),
            "{kind}"
        );
        assert_eq!(
            (found.correlation_id.as_str(), found.refused.len()),
            ("c-1", 0),
            "{kind}"
        );
    };
    check("map", &propagation::extract(&map));
    check("sorted", &propagation::extract(&sorted));
    check("list", &propagation::extract(&list));
    check("metadata", &propagation::extract(&metadata));
    for values in [
        map.header_values("tracestate").count(),
        list.header_values("baggage").count(),
    ] {
        assert_eq!(values, 1);
    }
    list.set("Baggage", "b=2");
    assert_eq!(list.header_values("baggage").collect::<Vec<_>>(), [b"b=2"]);
}

proptest! {
    /// Whatever comes in: no panic, and what goes out is a valid context.
    #[test]
    fn anything_may_come_in(
        parent in proptest::collection::vec(0x20..=0x7e_u8, 0..80),
        state in proptest::collection::vec(0x20..=0xff_u8, 0..80),
        baggage in proptest::collection::vec(0x20..=0xff_u8, 0..80),
        id in proptest::collection::vec(0x20..=0xff_u8, 0..20),
        at in 0..55_usize,
        byte in 0x20..=0x7e_u8,
    ) {
        let _telemetry = Telemetry::test();
        let mut broken = VALID.as_bytes().to_vec();
        broken[at] = byte;
        for parent in [&parent, &broken] {
            let incoming: HeaderMap = [("traceparent", parent), ("tracestate", &state), ("baggage", &baggage), ("x-correlation-id", &id)]
                .into_iter()
                // What is no header at all does not come in.
                .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?)))
                .collect();
            let (outgoing, _) = through(&incoming);
            let (again, refused) = through(&outgoing);
            prop_assert!(refused.is_empty(), "{:?}", refused);
            prop_assert_eq!(trace_id(&again), trace_id(&outgoing));
            for name in ["tracestate", "baggage", "x-correlation-id"] {
                prop_assert_eq!(again.get(name), outgoing.get(name));
            }
        }
    }
}
