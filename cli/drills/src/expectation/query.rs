//! What an expression looks back over, read from its text: Prometheus has accepted it, so only strings and comments have to
//! be told from the rest. It knows no grammar.

use std::time::Duration;

use opsctl_platform::prometheus::duration;

/// What stands in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The ranges, `[5m]` and `[5m:30s]`, in order.
    pub(super) ranges: Vec<Duration>,
    /// The words: metrics, functions, labels.
    pub(super) words: Vec<String>,
}

/// Reads an expression. What is no range or word is passed over.
pub(super) fn parts(query: &str) -> Parts {
    let mut parts = Parts::default();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '\'' | '`' => 1 + string_end(&rest[1..], first),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '[' => {
                let end = rest.find(']').unwrap_or(rest.len());
                let inside = rest[1..end].split(':').next().unwrap_or_default();
                parts.ranges.extend(duration(inside.trim()));
                end
            }
            c if c.is_alphabetic() || c == '_' || c == ':' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let end = end.unwrap_or(rest.len());
                parts.words.push(rest[..end].to_owned());
                end
            }
            // A number with its unit is no word.
            c if c.is_ascii_digit() => rest
                .find(|c: char| !(c.is_alphanumeric() || c == '.'))
                .unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        rest = &rest[end.max(first.len_utf8()).min(rest.len())..];
    }
    parts
}

/// Where a string ends, behind its closing quote. There are no escapes between backticks.
fn string_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != '`' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_found_and_strings_are_passed_over() {
        let cases: [(&str, &[u64]); 7] = [
            ("up == 0", &[]),
            ("rate(x[5m]) > 1", &[300]),
            ("max_over_time(rate(x[1m])[1h30m:30s])", &[60, 5400]),
            ("x{a=\"[9m]\\\"[8m]\"} + rate(y[30s])", &[30]),
            ("x{a=~`[9m]\\`} + rate(y[ 2m ])", &[120]),
            ("rate(x[5m]) # [9m] \"\n + rate(y[1m])", &[300, 60]),
            ("rate(x[5m] offset 3h) / rate(y['", &[300]),
        ];
        for (query, seconds) in cases {
            let wanted: Vec<_> = seconds.iter().copied().map(Duration::from_secs).collect();
            assert_eq!(parts(query).ranges, wanted, "{query}");
        }
        assert_eq!(
            parts("sum by (job) (job:errors:rate5m{x='a b'}) > 14.4 * 1e3").words,
            ["sum", "by", "job", "job:errors:rate5m", "x"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in ".{0,200}") {
            parts(&text);
        }
    }
}
