//! What holds for a Prometheus and an Alertmanager that answer with anything, over real sockets: it is judged in bounded
//! time, what is said of it fits on a terminal, and no secret is in it.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use alerts::live::silence::{self, Request};
use alerts::live::{Access, Alertmanager, Expected, Matcher, Prometheus, Seen, Status, World, check};
use fixtures::fuzzing::Target;
use fixtures::liar::Liar;
use jiff::{SignedDuration, Timestamp};
use lint::SourceFile;
use tokio::runtime::{Builder, Runtime};

use super::findings;

/// The targets of this file.
pub const TARGETS: &[Target] = &[Target {
    name: "answers",
    seeds,
    property: answers,
    odd: ODD,
}];

/// What means something in an answer.
pub const ODD: &[&str] = &[
    "{\"status\":\"success\",\"data\":",
    "\"data\":{}",
    "\"groups\":[]",
    "\"result\":[",
    "NaN",
    "\"NaN\"",
    "1e308",
    "-1",
    "\"\\u001b[2J\"",
    "\"\\u0000\"",
    "hunter2",
    "\"err\"",
    "\"firing\"",
    "\"active\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"down\"",
    "\n500 ",
    "\n401 ",
    "\n302 ",
    "[[",
    "}}",
    ",",
    "\\",
    "null",
    "true",
];

/// The token that is sent, which nobody may be shown.
const SECRET: &str = "hunter2";

/// Both servers, asked one input after the other.
struct Asked {
    liar: Liar,
    runtime: Runtime,
    prometheus: Prometheus,
    alertmanager: Alertmanager,
    expected: Expected,
}

static ASKED: LazyLock<Mutex<Asked>> = LazyLock::new(|| {
    let liar = Liar::start();
    let rules = SourceFile::new("rules.yaml", include_str!("../seeds/rules.yaml"));
    let routes = SourceFile::new("routes.yaml", include_str!("../seeds/alertmanager.yaml"));
    let access = || Access::Bearer(SECRET.to_owned());
    let limit = Duration::from_secs(5);
    Mutex::new(Asked {
        runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        prometheus: Prometheus::new(liar.address(), access(), None)
            .expect("a client")
            .limit(limit),
        alertmanager: Alertmanager::new(liar.address(), access(), None)
            .expect("a client")
            .limit(limit),
        expected: Expected::read(vec![rules, routes]).0,
        liar,
    })
});

fn seeds() -> Vec<Vec<u8>> {
    let rules = r#"{"status":"success","data":{"groups":[{"name":"shop","file":"a","interval":30,"evaluationTime":0.1,"lastEvaluation":"2026-11-23T10:00:00Z","rules":[{"type":"alerting","name":"Up","query":"up{job=~\"api\"} == 0","duration":0,"keepFiringFor":0,"labels":{"severity":"page","tier":"a\tb"},"annotations":{"summary":"{{ $label.x }}"},"health":"err","lastError":"no"},{"type":"recording","name":"job:requests:rate5m","query":"sum by (job) (up)","health":"ok"}]}]}}"#;
    let rest = r#"{"status":"success","data":{"activeTargets":[{"labels":{"job":"a","instance":"b"},"health":"down","lastError":"refused"}],"alerts":[{"labels":{"alertname":"Up","severity":"page"},"annotations":{"summary":"s"},"state":"firing","activeAt":"2026-11-23T10:00:00Z","value":"1e+00"}],"activeAlertmanagers":[{"url":"http://a:9093/api/v2/alerts"}],"resultType":"vector","result":[{"metric":{"opsctl_selector":"0"},"value":[1795392000,"1"]}]}}"#;
    let theirs = r#"[{"name":"all","labels":{"alertname":"Up"},"annotations":{},"startsAt":"2026-11-23T10:00:00Z","fingerprint":"ab","receivers":[{"name":"pay"}],"receiver":{"name":"pay"},"status":{"state":"active","silencedBy":["1"],"inhibitedBy":["ab"],"mutedBy":["nights"]},"id":"1","matchers":[{"name":"alertname","value":"U.*","isRegex":true}],"endsAt":"2026-11-24T10:00:00Z","createdBy":"a","comment":"b","alerts":[]}]"#;
    vec![
        [rules, rest, theirs].join("\n").into_bytes(),
        [rest, rest, theirs].join("\n").into_bytes(),
        [theirs, rest, "503 you said hunter2", rules].join("\n").into_bytes(),
        b"401 hunter2\n302 \n<html>\n{\"error\":\"no\"}".to_vec(),
    ]
}

fn answers(input: &[u8]) {
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("an instant");
    asked.liar.says(input);
    let look = World::look(&asked.prometheus, Some(&asked.alertmanager), &asked.expected, now);
    let world = asked.runtime.block_on(look);

    let outcome = check(&world, &asked.expected);
    findings::hold(&outcome.report);
    let status = Status::of(&world, &[]);
    let _ = status.verdict(&world);
    assert!(serde_json::to_string(&status).is_ok());
    let told = &world.told;
    let reasons = [
        told.rules.silence(),
        told.targets.silence(),
        told.active.silence(),
        told.alertmanagers.silence(),
        told.series.silence(),
        told.receivers.silence(),
        told.alerts.silence(),
        told.silences.silence(),
    ];
    for (why, _) in reasons.into_iter().flatten() {
        assert!(!why.contains(SECRET), "{why:?}");
        assert!(why.len() < 2000 && !why.chars().any(char::is_control), "{why:?}");
    }
    let (Seen::Told(alerts), Seen::Told(silences)) = (&told.alerts, &told.silences) else {
        return;
    };
    for silence in silences {
        let planned = silence::plan_expire(&silence.id, silences);
        assert!(planned.is_ok() || silence.status.state == "expired");
    }
    let matcher: Matcher = silence::matcher("alertname=~U.*").expect("a matcher");
    let request = Request {
        matchers: vec![matcher],
        duration: SignedDuration::from_hours(1),
        author: "a".to_owned(),
        comment: "b".to_owned(),
    };
    assert!(silence::plan(request, alerts, silences, now).is_ok());
}
