//! Durations as Prometheus and Alertmanager write them, `1h30m`, in milliseconds. Not PromQL's, which may be negative
//! or computed.

const UNITS: [(&str, u64, bool); 7] = [
    // A year and a week are only written when nothing is left over.
    ("y", 365 * 24 * 3_600_000, true),
    ("w", 7 * 24 * 3_600_000, true),
    ("d", 24 * 3_600_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1_000, false),
    ("ms", 1, false),
];

/// Milliseconds; `None` where Prometheus refuses the text: units stand in order, each at most once.
pub(crate) fn parse(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (_, size, _) = units.find(|(name, ..)| *name == &unit[..letters])?;
        total = total.checked_add(number.checked_mul(*size)?)?;
        rest = &unit[letters..];
    }
    // Prometheus keeps nanoseconds in 63 bits.
    (!text.is_empty() && total <= i64::MAX as u64 / 1_000_000).then_some(total)
}

/// As Prometheus writes it.
pub(crate) fn show(milliseconds: u64) -> String {
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let mut rest = milliseconds;
    let mut text = String::new();
    for (name, size, exact) in UNITS {
        if rest < size || (exact && !rest.is_multiple_of(size)) {
            continue;
        }
        text += &(rest / size).to_string();
        text += name;
        rest %= size;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_prometheus_refuses_is_refused() {
        for text in [
            "",
            "5",
            "5x",
            "1m1h",
            "1m1m",
            "-1m",
            "1.5h",
            "300y",
            "m",
            "5m ",
            "99999999999999999999s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("1y2w3d4h5m6s7ms"), Some(33_019_506_007));
        assert_eq!(parse("0"), Some(0));
        assert_eq!(show(90_000), "1m30s");
        assert_eq!(show(15 * 24 * 3_600_000), "15d");
        assert_eq!(show(14 * 24 * 3_600_000), "2w");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(milliseconds in 0..=i64::MAX as u64 / 1_000_000) {
            prop_assert_eq!(parse(&show(milliseconds)), Some(milliseconds));
        }
    }
}
