//! What holds for captures of `/metrics`.

use fixtures::fuzzing::Target;
use manifest::capture::{LIMITS, Limits, read};

use super::language::text;

/// The targets of this file.
pub const TARGETS: &[Target] = &[Target {
    name: "capture",
    seeds,
    property: capture,
    odd: &[
        "# TYPE ",
        "# HELP ",
        "# UNIT ",
        "# EOF\n",
        "_total",
        "_bucket",
        "{",
        "}",
        "le=\"+Inf\"",
        "\\\"",
        "\\n",
        "=",
        ",",
        " ",
        "NaN",
        "-Inf",
        "0x1p-2",
        "é",
        "\r\n",
        "{\"a b\"",
        "# {a=\"b\"} 1 2",
    ],
}];

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "# HELP a_total What.\n# TYPE a_total counter\na_total{b=\"c\\\"d\\n\",e=\"\"} 1 1700000000000\na_total 2.5e3\n\
         # TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n\
         # TYPE s summary\ns{quantile=\"0.9\"} NaN\n",
        "# TYPE c counter\n# UNIT c seconds\nc_total{x=\"y\"} 1 1.5 # {trace_id=\"ab\"} 0.5 1.2\nc_created 1\n\
         # TYPE i info\ni_info{version=\"1\"} 1\n# TYPE t stateset\nt{t=\"on\"} 1\n{\"utf.8 name\",a=\"b\"} +Inf\n# EOF\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Names are there and buckets rise; smaller limits refuse and change nothing else.
fn capture(input: &[u8]) {
    let text = text(input);
    let small = Limits {
        bytes: 2000,
        line: 200,
        metrics: 5,
        labels: 3,
    };
    let whole = read(&text, "a.prom", LIMITS);
    match (&whole, read(&text, "a.prom", small)) {
        (Ok(whole), Ok(small)) => assert_eq!(whole.len(), small.len(), "{text:?}"),
        (Err(_), Ok(_)) => panic!("{text:?} is refused with larger limits alone"),
        (_, Err(error)) => assert!(
            error.line <= text.split('\n').count() && !error.what.is_empty(),
            "{error:?}"
        ),
    }
    for metric in whole.iter().flat_map(manifest::Manifest::metrics) {
        assert!(!metric.name.is_empty(), "{text:?}: {metric:?}");
        assert!(metric.buckets.is_sorted_by(|a, b| a < b), "{text:?}: {metric:?}");
        assert!(metric.labels.len() <= LIMITS.labels, "{text:?}: {metric:?}");
    }
}
