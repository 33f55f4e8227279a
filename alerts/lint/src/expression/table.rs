//! The table of checks of expressions.

crate::checks! {
    /// All checks of expressions.
    pub CHECKS;

    METRIC_UNKNOWN, "metric-unknown", Error,
        "A metric that nobody exports.",
        "The result is empty for ever: an alert on it never fires, and a panel shows nothing.";
    LABEL_UNKNOWN, "label-unknown", Error,
        "A matcher on a label that the metric does not have.",
        "The selector matches nothing: an alert on it never fires, and a panel shows nothing.";
    LABEL_VALUE, "label-value", Error,
        "A matcher on a value that the label never has.",
        "The selector matches nothing, or its condition excludes nothing.";
    LABEL_DROPPED, "label-dropped", Error,
        "A label is used where an operation below has dropped it.",
        "It is empty there.";
    CLIENT_ERRORS, "client-errors", Warning,
        "Errors are counted as “everything but success”.",
        "That counts what callers did wrong (not found, invalid, cancelled) as an outage of the service.";
    REGEX_LITERAL, "regex-literal", Warning,
        "A regular expression without any meta character.",
        "An equality says the same, is faster, and can be checked.";
    REGEX_ANCHOR, "regex-anchor", Warning,
        "A regular expression with anchors.",
        "Prometheus anchors every expression at both ends.";
    REGEX_ANY, "regex-any", Note,
        "A matcher that everything matches.",
        "It selects nothing out and hides what the rule is about.";
    REGEX_NONE, "regex-none", Error,
        "A matcher that nothing matches.",
        "The result is empty for ever: an alert on it never fires, and a panel shows nothing.";

    COUNTER_RAW, "counter-raw", Error,
        "The value of a counter is compared as it is.",
        "It only grows, and begins at zero with each restart: such a condition stays true until then. Use `rate` or `increase`.";
    RATE_ON_GAUGE, "rate-on-gauge", Error,
        "A function for counters on a gauge.",
        "Each time the gauge falls is taken for a restart, and its value is counted as growth. Use `delta` or `deriv`.";
    DELTA_ON_COUNTER, "delta-on-counter", Warning,
        "A function for gauges on a counter.",
        "It does not know of restarts: one of them gives a large negative value. Use `rate` or `increase`.";
    RATE_OF_SUM, "rate-of-sum", Error,
        "The rate of a sum of counters.",
        "When one of the counters restarts the sum falls, and all that remains of it is taken for growth. First the rate, then the sum.";
    QUANTILE_AGGREGATED, "quantile-aggregated", Error,
        "Quantiles are summed or averaged.",
        "What comes of several quantiles is the quantile of nothing. Sum the buckets by `le`, then take the quantile.";
    TIMESTAMP_RAW, "timestamp-raw", Error,
        "A moment is compared like a duration.",
        "Its value is the seconds since 1970. An age is `time() - …`.";

    NO_MATCH, "vector-matching", Error,
        "The two sides of an operator have no series in common.",
        "The result is empty for ever: an alert on it never fires, and a panel shows nothing.";
    MANY_TO_ONE, "many-to-one", Error,
        "A series of one side belongs to several of the other.",
        "Prometheus refuses to evaluate that: the rule fails at each evaluation. `group_left` or `group_right` says which side has many, or an aggregation makes them one.";
    SAME_SERIES, "same-series", Error,
        "Both sides of an operator are the same series.",
        "Every series is divided by itself: the result is always the same, whatever happens.";

    METRIC_AS_LABEL, "metric-as-label", Warning,
        "A metric stands where a label is named.",
        "No series has such a label: matched `on` it every series meets every other, and grouped by it all are one.";

    NEVER_TRUE, "never-true", Error,
        "A condition that no value can meet.",
        "The alert never fires.";
    ABOVE_TOP_BUCKET, "above-top-bucket", Error,
        "A quantile is compared with more than the highest bucket can tell.",
        "A quantile is never greater than the highest finite bound: the alert never fires.";
    OFF_BUCKET, "off-bucket", Warning,
        "A quantile is compared with a value that is no bound of a bucket.",
        "Between two bounds the quantile is guessed. Use a bound, or the share of requests within one.";
    LE_OFF_BUCKET, "le-off-bucket", Error,
        "A bucket that the histogram does not have.",
        "The selector matches nothing.";
    LE_DROPPED, "le-dropped", Error,
        "`le` is dropped before `histogram_quantile`.",
        "Without it there are no buckets to compute of: the result is empty for ever.";

    RANGE_SHORT, "range-short", Warning,
        "A range of fewer than four scrapes.",
        "With one scrape lost there are not enough samples left for a rate.";
    NO_ZERO_GUARD, "no-zero-guard", Warning,
        "A ratio whose divisor may be zero.",
        "0 / 0 is NaN and meets no condition: without any traffic, as in a total outage, nothing fires.";
    SHARED_SUM, "shared-sum", Warning,
        "A sum over replicas that all export the same number.",
        "It counts the number once per replica. Use `max`.";
    IDENTITY_LABEL, "identity-label", Warning,
        "A label with a value per request, user or order.",
        "Each value makes series of its own: memory grows without bound, and so does the number of alerts.";
    SELECTION_FLAPS, "selection-flaps", Warning,
        "An alert on the k greatest or least series.",
        "Which they are changes from one evaluation to the next, and with each change an alert resolves and another begins to wait.";
    ABSENT_AGGREGATED, "absent-many", Warning,
        "`absent` of many series at one time.",
        "It says something only when all of them are gone, and has no labels to tell which.";
}
