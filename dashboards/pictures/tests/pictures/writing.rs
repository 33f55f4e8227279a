//! Numbers as they are written, and text as it is cut.

use pictures::{Unit, fit, width};

#[test]
fn values_have_about_three_digits_and_a_prefix_that_fits() {
    for (unit, value, expected) in [
        ("short", 0.0, "0"),
        ("short", 1_234_567.0, "1.23M"),
        ("short", -1500.0, "−1.5k"),
        ("short", 0.000_123_4, "0.000123"),
        ("none", 1_234_567.0, "1234567"),
        ("none", 1e18, "1.00e18"),
        ("bytes", 1536.0, "1.5\u{a0}KiB"),
        ("bytes", 3.5e9, "3.26\u{a0}GiB"),
        ("decbytes", 3.5e9, "3.5\u{a0}GB"),
        ("s", 0.0123, "12.3\u{a0}ms"),
        ("s", 90.0, "1.5\u{a0}min"),
        ("s", 0.0, "0\u{a0}s"),
        ("s", 864_000.0, "10\u{a0}d"),
        ("ms", 1500.0, "1.5\u{a0}s"),
        ("ms", 0.25, "250\u{a0}µs"),
        ("percent", 12.345, "12.3%"),
        ("percentunit", 0.9995, "100%"),
        ("reqps", 12.0, "12\u{a0}req/s"),
        ("ops", 12_000.0, "12\u{a0}kops/s"),
        ("celsius", 21.5, "21.5°C"),
        ("bool_yes_no", 1.0, "yes"),
        ("dateTimeAsIso", 1_795_392_000_000.0, "2026-11-23 00:00:00"),
        ("widgets", 5.0, "5\u{a0}widgets"),
        ("s", f64::NAN, "no value"),
        ("bytes", f64::NEG_INFINITY, "−∞"),
        ("short", -1e-12, "−1.00e−12"),
    ] {
        assert_eq!(Unit::named(unit).format(value, None), expected, "{value} {unit}");
    }
    assert_eq!(Unit::named("percentunit").format(0.9995, Some(2)), "99.95%");
    assert_eq!(Unit::named("s").format(-0.000_01, Some(0)), "−10\u{a0}µs");
}

#[test]
fn ticks_are_round_share_a_prefix_and_reach_the_top() {
    let texts = |unit: &str, low: f64, high: f64| {
        let ticks = Unit::named(unit).ticks(low, high, 5);
        ticks
            .into_iter()
            .map(|tick| tick.1)
            .collect::<Vec<_>>()
            .join(" ")
            .replace('\u{a0}', "")
    };
    assert_eq!(texts("none", 0.0, 200.0), "0 50 100 150 200");
    assert_eq!(texts("bytes", 0.0, 3e9), "0 1.0GiB 2.0GiB 3.0GiB".replace(".0", ""));
    assert_eq!(texts("s", 0.0, 0.41), "0 100ms 200ms 300ms 400ms 500ms");
    assert_eq!(texts("percentunit", 0.0, 1.0), "0 20% 40% 60% 80% 100%");
    assert_eq!(texts("none", -2.0, 4.0), "−2 0 2 4");
    assert_eq!(
        texts("short", 1000.0, 1002.0),
        "1.0000k 1.0005k 1.0010k 1.0015k 1.0020k"
    );
}

#[test]
fn text_is_cut_where_there_is_no_room() {
    assert_eq!(fit("orders", 12.0, 100.0), "orders");
    let cut = fit("a name that is far too long", 12.0, 80.0);
    assert!(cut.ends_with('…') && width(&cut, 12.0) <= 80.0, "{cut}");
    assert_eq!(fit("orders", 12.0, 3.0), "");
}
