//! What is looked for in a running environment: the checks, and why each matters. How is `check`.

lint::checks! {
    /// What is looked for in a running environment.
    pub CHECKS;
    NO_ANSWER, "no-answer", Error,
        "A question was not answered.",
        "What was not answered is not known.";
    RULES_NOT_LOADED, "rules-not-loaded", Error,
        "Rules are not loaded.",
        "What is not evaluated never fires.";
    RULE_DIFFERS, "rule-differs", Error,
        "A loaded rule is not the rendered one.",
        "What was reviewed and tested is not what runs.";
    RULE_UNKNOWN, "rule-unknown", Warning,
        "A loaded group has a rule that was not rendered.",
        "Nobody keeps it, and the next change of the file removes it.";
    RULE_FAILS, "rule-fails", Error,
        "A rule cannot be evaluated.",
        "An alert that cannot be evaluated never fires.";
    EVALUATION_LATE, "evaluation-late", Error,
        "A group has not been evaluated for three intervals.",
        "Its alerts are late or never come.";
    EVALUATION_SLOW, "evaluation-slow", Warning,
        "A group takes more than half of its interval to evaluate.",
        "Beyond its interval evaluations are left out, and `for` takes longer than it says.";
    NEVER_EVALUATED, "never-evaluated", Note,
        "A group has not been evaluated yet.",
        "Whether its rules work is not known.";
    TARGET_DOWN, "target-down", Error,
        "A target is not scraped.",
        "Rules see none of its series, and most are silent without them.";
    NO_TARGETS, "no-targets", Error,
        "Nothing is scraped.",
        "No rule has anything to look at.";
    METRIC_MISSING, "metric-missing", Error,
        "A rule asks for a metric that has no series.",
        "Without series an expression is empty, and an alert that is empty does not fire.";
    SERIES_MISSING, "series-missing", Warning,
        "A rule asks for series that are not there now, though their metric is.",
        "Either nothing of the kind has happened yet, or a label is not what the rule takes it for.";
    NO_ALERTMANAGER, "no-alertmanager", Error,
        "Prometheus sends its alerts nowhere.",
        "What fires reaches nobody.";
    RECEIVER_MISSING, "receiver-missing", Error,
        "A receiver that the rendered routes name is not loaded.",
        "Another configuration runs, which sends elsewhere.";
    RECEIVER_UNREACHABLE, "receiver-unreachable", Error,
        "Nothing that Alertmanager sends to receivers of a kind comes through.",
        "Whoever is told that way hears of nothing.";
    RECEIVER_FAILS, "receiver-fails", Warning,
        "Some of what Alertmanager sends to receivers of a kind fails.",
        "It is sent again, so somebody hears of it late; when time is over, never.";
    SILENCE_HIDES, "silence-hides", Warning,
        "A silence hides a rendered alert.",
        "It fires and nobody is told.";
    SILENCE_UNEXPLAINED, "silence-unexplained", Warning,
        "A silence does not say who made it and why.",
        "Nobody knows whether it may go.";
    ALERT_FIRES, "alert-fires", Note,
        "An alert fires now.",
        "Somebody is told, or should be.";
}
