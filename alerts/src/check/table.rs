//! The table of checks of rules as such. Those of their expressions are a table of `lint`.

lint::checks! {
    /// All checks of rules.
    pub CHECKS;

    MORE_FINDINGS, "more-findings", Note,
        "More is found in a file than is shown.",
        "Mend what is shown and look again.";
    SYNTAX, "promql", Error,
        "The expression cannot be read as PromQL.",
        "Prometheus refuses the whole file.";
    FEATURE_FLAG, "feature-flag", Error,
        "The expression needs a feature flag of Prometheus.",
        "A Prometheus without the flag refuses the whole file.";
    TEMPLATE, "template", Error,
        "A template that cannot be expanded.",
        "The alert is sent with an error message in the place of its text.";
    TEMPLATE_QUERY, "template-query", Error,
        "A query in a template that cannot be read as PromQL.",
        "The alert is sent with an error message in the place of its text.";
    PERCENT_TWICE, "percent-twice", Warning,
        "A share in per cent is shown with `humanizePercentage`.",
        "Whoever is called reads 500 % where it is 5 %.";
    VALUE_AS_LABEL, "value-as-label", Warning,
        "The number is looked for among the labels.",
        "Where no series has a label `value` the text has a gap. The number is `$value`.";
    VALUE_IN_LABEL, "value-in-label", Error,
        "A label that holds the value of the alert.",
        "With every other value it is another alert: it never waits long enough to fire, or notifies each time.";

    NO_CONDITION, "no-condition", Warning,
        "An alert without a condition.",
        "It fires for every series that there is, whatever the value.";
    BOOL_CONDITION, "bool-condition", Error,
        "The condition of an alert is a `bool` comparison.",
        "It gives 0 or 1 instead of leaving series out: the alert always fires.";
    NO_FOR, "no-for", Warning,
        "An alert without `for`.",
        "One evaluation is enough: one lost scrape or one spike calls somebody.";
    FOR_SHORT, "for-short", Warning,
        "`for` is shorter than two evaluations.",
        "It has no effect, or that of a single evaluation.";
    FOR_LONGER_THAN_RANGE, "for-longer-than-range", Note,
        "`for` is longer than the range that an event is looked for in.",
        "A single event leaves the range before the alert fires: only repeated ones ever fire it.";
    NO_DATA, "no-data", Note,
        "Nothing fires when the series of an alert are gone.",
        "An exporter that is dead resolves its alerts. Alert on `absent(…)` or on `up` of its job as well.";
    PER_SERVICE, "one-for-all", Warning,
        "One alert for all services.",
        "A small service that fails altogether hides behind large ones. Group by what tells them apart.";

    NO_SEVERITY, "no-severity", Warning,
        "An alert without the label `severity`.",
        "Routes cannot tell whom to wake.";
    UNKNOWN_SEVERITY, "severity-unknown", Warning,
        "A severity that nobody routes.",
        "Routes by severity pass it by, down to whoever gets the rest.";
    NO_SUMMARY, "no-summary", Warning,
        "An alert without a summary or description.",
        "Whoever is called sees a name and labels.";
    NO_RUNBOOK, "no-runbook", Note,
        "An alert without a runbook.",
        "Whoever is called has to find out what to do.";

    DUPLICATE_RULE, "duplicate-rule", Warning,
        "Two rules are the same.",
        "The second costs an evaluation and adds nothing.";
    DUPLICATE_ALERT, "duplicate-alert", Warning,
        "Two alerts have the same name and the same labels.",
        "Alertmanager cannot tell them apart: one resolves the other, and a silence for one silences both.";
    RECORDED_LATER, "recorded-later", Warning,
        "A recorded series is used before it is recorded.",
        "Rules of a group run in their order: the value is that of the evaluation before.";
    RECORDED_ELSEWHERE, "recorded-elsewhere", Note,
        "A recorded series of a group with another interval.",
        "Its value may be older than this rule's interval.";
}
