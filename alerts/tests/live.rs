//! The live comparison against a real Prometheus and a real Alertmanager, and against servers that hang and lie.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::future::Future;
use std::time::Duration;

use alerts::live::silence::{self, Plan, Request};
use alerts::live::{
    Access, ActiveAlert, Alertmanager, EndpointError, Expected, Hidden, Outcome, Prometheus, Proof, ReceivedAlert,
    Seen, Status, Told, Verdict, World, check,
};
use jiff::{SignedDuration, Timestamp};
use lint::SourceFile;
use peers::{Server, servers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const RULES: &str = r#"
groups:
- name: shop
  interval: 1s
  labels: {team: pay}
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: AlwaysOn
    expr: sum(up) by (job) >= 0
    labels: {severity: page}
    annotations: {summary: "{{ $labels.job }} is here", runbook_url: "https://runbooks.example/on"}
  - alert: Quiet
    expr: absent(up{job="never"}) == 0
    for: 1m
    labels: {severity: info}
"#;

fn now() -> Timestamp {
    Timestamp::now()
}

fn expected(text: &str) -> Expected {
    let source = SourceFile::new("rules.yaml", text);
    let (rules, findings) = alerts::rules::read(&source);
    assert!(findings.is_empty(), "{findings:?}");
    Expected {
        rules: vec![(source, rules)],
        receivers: vec!["nobody".to_owned()],
    }
}

fn names(outcome: &Outcome) -> Vec<&str> {
    let mut names: Vec<&str> = outcome
        .report
        .findings
        .iter()
        .map(|finding| finding.check.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

async fn eventually<T, F: Future<Output = Result<T, String>>>(look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

struct Environment {
    prometheus: Prometheus,
    alertmanager: Alertmanager,
    _servers: (Server, Server),
    _folder: tempfile::TempDir,
}

async fn environment(rules: &str, test: &str) -> Option<Environment> {
    told_by(servers::Alertmanager::default(), rules, test).await
}

async fn told_by(teller: servers::Alertmanager, rules: &str, test: &str) -> Option<Environment> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules).unwrap();
    let alertmanager = Server::start(teller, test).await?;
    let at = alertmanager.address("http");
    let recipe = servers::Prometheus::default()
        .rules(&file)
        .alertmanager(at)
        .scrape("alertmanager", at);
    let prometheus = Server::start(recipe, test).await?;
    let url = |server: &Server| format!("http://{}", server.address("http"));
    Some(Environment {
        prometheus: Prometheus::new(&url(&prometheus), Access::Open, None).unwrap(),
        alertmanager: Alertmanager::new(&url(&alertmanager), Access::Open, None).unwrap(),
        _servers: (prometheus, alertmanager),
        _folder: folder,
    })
}

impl Environment {
    async fn look(&self, expected: &Expected) -> World {
        World::look(&self.prometheus, Some(&self.alertmanager), expected, now()).await
    }

    /// When the alert has arrived at Alertmanager.
    async fn firing(&self) -> World {
        let expected = expected(RULES);
        eventually(async || {
            let world = self.look(&expected).await;
            let there = world.told.alerts.told().is_some_and(|alerts| !alerts.is_empty());
            let known = !check(&world, &expected)
                .report
                .findings
                .iter()
                .any(|one| one.check.name == "never-evaluated");
            if there && known {
                Ok(world)
            } else {
                Err(format!("{world:?}"))
            }
        })
        .await
    }
}

#[tokio::test]
async fn an_environment_as_rendered_is_good() {
    let Some(environment) = environment(RULES, "an_environment_as_rendered_is_good").await else {
        return;
    };
    let world = environment.firing().await;
    let outcome = check(&world, &expected(RULES));
    assert_eq!(outcome.verdict, Verdict::Good, "{:#?}", outcome.report.findings);
    assert_eq!(names(&outcome), ["alert-fires"]);
    assert!(environment.prometheus.build_info().await.is_ok());
    assert!(environment.alertmanager.version().await.is_ok());
}

/// The one receiver is where nobody listens.
#[tokio::test]
async fn a_receiver_that_nobody_reaches_is_found() {
    let test = "a_receiver_that_nobody_reaches_is_found";
    let routes = "route: {receiver: nobody, group_wait: 0s}\n\
        receivers: [{name: nobody, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]\n";
    let Some(environment) = told_by(servers::Alertmanager::new(routes), RULES, test).await else {
        return;
    };
    let expected = expected(RULES);
    let outcome = eventually(async || {
        let outcome = check(&environment.look(&expected).await, &expected);
        if names(&outcome).contains(&"receiver-unreachable") {
            Ok(outcome)
        } else {
            Err(format!("{:#?}", outcome.report.findings))
        }
    })
    .await;
    assert_eq!(outcome.verdict, Verdict::Bad);
}

#[tokio::test]
async fn what_differs_is_found() {
    let Some(environment) = environment(RULES, "what_differs_is_found").await else {
        return;
    };
    let world = environment.firing().await;
    let changed = RULES
        .replace(">= 0", ">= 1")
        .replace("for: 1m", "for: 2m")
        .replace("severity: info", "severity: page")
        .replace("record: job:up:sum", "record: job:up:total");
    let Outcome { verdict, report } = check(&world, &expected(&changed));
    assert_eq!(verdict, Verdict::Bad);
    let all: Vec<String> = report
        .findings
        .iter()
        .map(|one| format!("{} {}: {}", one.check.name, one.subject, one.what))
        .collect();
    let text = all.join("\n");
    for line in [
        "rules-not-loaded job:up:total: `job:up:total` is not loaded, though its group is.",
        "rule-unknown job:up:sum:",
        "rule-differs AlwaysOn: The loaded `AlwaysOn` differs: its expression is",
        "rule-differs Quiet: The loaded `Quiet` differs: `for` is 1m, not 2m; the label `severity` is \"info\", not \"page\".",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let moved = RULES.replace("name: shop", "name: store");
    let mut elsewhere = expected(&moved);
    elsewhere.receivers.push("pay".to_owned());
    let outcome = check(&world, &elsewhere);
    let found = names(&outcome);
    assert!(
        found.contains(&"rules-not-loaded") && found.contains(&"receiver-missing"),
        "{found:?}"
    );
}

#[tokio::test]
async fn targets_series_and_rules_that_fail_are_found() {
    const TEST: &str = "targets_series_and_rules_that_fail_are_found";
    let rules = "groups:\n- name: g\n  rules:\n  - {alert: Twice, expr: 'up * on () up'}\n  - {alert: None, expr: 'no_such_metric > 1'}\n  \
                 - {alert: Label, expr: 'up{job=\"other\"} == 0'}\n  - {alert: Gone, expr: 'absent(other_metric)'}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules).unwrap();
    let recipe = servers::Prometheus::default()
        .rules(&file)
        .scrape("one", "127.0.0.1:1")
        .scrape("two", "127.0.0.1:2");
    let Some(server) = Server::start(recipe, TEST).await else {
        return;
    };
    let prometheus = Prometheus::new(&format!("http://{}", server.address("http")), Access::Open, None).unwrap();
    let expected = expected(rules);
    let outcome = eventually(async || {
        let world = World::look(&prometheus, None, &expected, now()).await;
        let outcome = check(&world, &expected);
        let found = names(&outcome);
        let wanted = [
            "rule-fails",
            "target-down",
            "no-alertmanager",
            "metric-missing",
            "series-missing",
        ];
        if wanted.iter().all(|name| found.contains(name)) {
            Ok(outcome)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    assert_eq!(outcome.verdict, Verdict::Bad);
    let of = |name: &str| -> Vec<&str> {
        let found = outcome.report.findings.iter().filter(|one| one.check.name == name);
        found.map(|one| one.subject.as_str()).collect()
    };
    assert_eq!(of("metric-missing"), ["None"], "what asks for absence wants none");
    assert_eq!(of("series-missing"), ["Label"]);
    assert_eq!(of("rule-fails"), ["Twice"]);
    assert_eq!(of("target-down").len(), 2);
}

#[tokio::test]
async fn a_silence_is_planned_made_seen_and_ended() {
    let Some(environment) = environment(RULES, "a_silence_is_planned_made_seen_and_ended").await else {
        return;
    };
    let world = environment.firing().await;
    let request = Request {
        matchers: vec![
            silence::matcher("alertname=~\"Always.*\"").unwrap(),
            silence::matcher("team=pay").unwrap(),
        ],
        duration: SignedDuration::from_mins(10),
        author: "sam".to_owned(),
        comment: "disk is being replaced".to_owned(),
    };
    let alerts = world.told.alerts.told().unwrap();
    let silences = world.told.silences.told().unwrap();
    let plan = silence::plan(request, alerts, silences, now()).unwrap();
    let Plan::Create { hides, .. } = &plan else {
        panic!("{plan:?}")
    };
    assert_eq!(hides.len(), 1);
    let id = silence::apply(&plan, &environment.alertmanager).await.unwrap();
    let proofs = [Proof {
        alertname: "AlwaysOn".to_owned(),
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        run: "r1".to_owned(),
    }];
    let silenced = eventually(async || {
        let world = environment.look(&Expected::default()).await;
        let status = Status::of(&world, &proofs);
        let hidden = status.alerts.iter().any(|alert| !alert.hidden.is_empty());
        if hidden {
            Ok((world, status))
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
    let (world, status) = silenced;
    let alert = &status.alerts[0];
    assert_eq!((alert.name.as_str(), alert.state.as_str()), ("AlwaysOn", "firing"));
    assert_eq!(alert.owner.as_deref(), Some("pay"));
    assert_eq!(alert.runbook.as_deref(), Some("https://runbooks.example/on"));
    assert_eq!(alert.receivers, ["nobody"]);
    assert_eq!(alert.proved.as_ref().map(|proof| proof.run.as_str()), Some("r1"));
    let Hidden::Silence { author, id: by, .. } = &alert.hidden[0] else {
        panic!("{alert:?}")
    };
    assert_eq!((author.as_str(), by), ("sam", &id));
    assert_eq!(status.verdict(&world), Verdict::Good, "what is hidden pages nobody");
    let outcome = check(&world, &expected(RULES));
    let hiding: Vec<_> = outcome
        .report
        .findings
        .iter()
        .filter(|one| one.check.name == "silence-hides")
        .collect();
    assert_eq!(hiding.len(), 1, "{:?}", outcome.report.findings);
    assert_eq!(hiding[0].subject, "AlwaysOn");

    let silences = world.told.silences.told().unwrap();
    let end = silence::plan_expire(&id, silences).unwrap();
    silence::apply(&end, &environment.alertmanager).await.unwrap();
    eventually(async || {
        let silences = environment.alertmanager.silences().await.unwrap();
        let states: Vec<_> = silences.iter().map(|one| one.status.state.clone()).collect();
        if states == ["expired"] {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    })
    .await;
    let silences = environment.alertmanager.silences().await.unwrap();
    assert!(silence::plan_expire(&id, &silences).is_err());
}

/// A server that answers every connection alike.
async fn scripted(answer: Vec<u8>, repeat: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                for _ in 0..repeat {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                if repeat == 0 {
                    // It never answers, and keeps the connection.
                    let _ = stream.read(&mut head).await;
                }
            });
        }
    });
    format!("http://user:hunter2@{address}/prefix")
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Everything that an error says, with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        words = format!("{words}: {source}");
        cause = source.source();
    }
    words
}

#[tokio::test]
async fn servers_that_lie_are_told_apart_and_told_nothing() {
    let deep = "[".repeat(200_000);
    type Is = fn(&EndpointError) -> bool;
    let cases: Vec<(&str, Vec<u8>, usize, Is)> = vec![
        ("nobody", answer("401 Unauthorized", "hunter2"), 1, |error| {
            matches!(error, EndpointError::Forbidden { .. })
        }),
        (
            "echo",
            answer("500 Oops", "{\"error\": \"you said hunter2\"}"),
            1,
            |error| matches!(error, EndpointError::Refused { message, .. } if message == "you said …"),
        ),
        ("html", answer("200 OK", "<html>"), 1, |error| {
            matches!(error, EndpointError::Foreign { .. })
        }),
        ("deep", answer("200 OK", &deep), 1, |error| {
            matches!(error, EndpointError::Foreign { .. })
        }),
        ("other", answer("200 OK", "{\"data\": {\"groups\": 5}}"), 1, |error| {
            matches!(error, EndpointError::Foreign { .. })
        }),
        (
            "cut",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
            1,
            |error| matches!(error, EndpointError::Unreachable { .. }),
        ),
        ("hangs", Vec::new(), 0, |error| {
            matches!(error, EndpointError::TimedOut { .. })
        }),
    ];
    for (name, body, repeat, is) in cases {
        let url = scripted(body, repeat).await;
        let prometheus = Prometheus::new(&url, Access::Open, None)
            .unwrap()
            .limit(Duration::from_millis(500));
        let error = prometheus.rules().await.unwrap_err();
        assert!(is(&error), "{name}: {error:?}");
        assert!(
            !chain(&error).contains("hunter2") && !format!("{prometheus:?}").contains("hunter2"),
            "{name}: {error:?}"
        );
    }
}

/// Long or many: what is said of it is short.
#[tokio::test]
async fn answers_that_are_long_or_many_are_refused_in_few_words() {
    let long = format!("{{\"data\": {{\"groups\": \"{}\"}}}}", "x".repeat(10 << 20));
    let many = format!(
        "{{\"data\": {{\"groups\": [{{\"rules\": [{}{{}}]}}]}}}}",
        "{},".repeat(5 << 20)
    );
    for body in [long, many] {
        let url = scripted(answer("200 OK", &body), 1).await;
        let prometheus = Prometheus::new(&url, Access::Open, None).unwrap();
        let error = prometheus.rules().await.unwrap_err();
        assert!(matches!(error, EndpointError::Foreign { .. }), "{}", error);
        assert!(chain(&error).len() < 1000, "{} bytes are said", chain(&error).len());
    }
}

/// Thousands of alerts, as in a bad hour, or as a server says that wants to be waited for.
#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn an_avalanche_of_alerts_is_told_in_time() {
    for (count, same) in [(20_000, false), (4_000, true)] {
        let labels = |n: usize| {
            let pod = if same { 0 } else { n };
            [("alertname", "A".to_owned()), ("pod", pod.to_string())]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        };
        let active = |n| ActiveAlert {
            labels: labels(n),
            state: "firing".to_owned(),
            ..ActiveAlert::default()
        };
        let received = |n| ReceivedAlert {
            labels: labels(n),
            fingerprint: n.to_string(),
            ..ReceivedAlert::default()
        };
        let told = Told {
            active: Seen::Told((0..count).map(active).collect()),
            alerts: Seen::Told((0..count).map(received).collect()),
            ..Told::default()
        };
        let world = World {
            now: now(),
            prometheus: String::new(),
            alertmanager: None,
            told,
        };
        let start = std::time::Instant::now();
        let status = Status::of(&world, &[]);
        let took = start.elapsed();
        assert!(status.alerts.iter().all(|alert| !alert.lost));
        assert!(same || status.alerts.len() == count);
        assert!(took < Duration::from_secs(30), "{count} alerts took {took:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_one_that_lies_is_inconclusive() {
    let nobody = Prometheus::new("http://127.0.0.1:1", Access::Open, None).unwrap();
    let world = World::look(&nobody, None, &Expected::default(), now()).await;
    let outcome = check(&world, &Expected::default());
    assert_eq!(outcome.verdict, Verdict::Unreachable);
    assert_eq!(names(&outcome), ["no-answer"]);
    assert_eq!(Status::of(&world, &[]).verdict(&world), Verdict::Unreachable);
    assert!(matches!(world.told.alerts, Seen::NotAsked));
    let liar = scripted(answer("200 OK", "{}"), 1).await;
    let liar = Prometheus::new(&liar, Access::Open, None).unwrap();
    let world = World::look(&liar, None, &Expected::default(), now()).await;
    assert_eq!(check(&world, &Expected::default()).verdict, Verdict::Inconclusive);
}

#[test]
fn what_only_shows_that_alerts_come_through_wakes_nobody() {
    for (severity, verdict) in [("none", Verdict::Good), ("page", Verdict::Bad)] {
        let labels = [("alertname", "Watchdog"), ("severity", severity)];
        let alert = ActiveAlert {
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            state: "firing".to_owned(),
            ..ActiveAlert::default()
        };
        let world = World {
            now: now(),
            prometheus: String::new(),
            alertmanager: None,
            told: Told {
                active: Seen::Told(vec![alert]),
                ..Told::default()
            },
        };
        assert_eq!(Status::of(&world, &[]).verdict(&world), verdict, "{severity}");
    }
}

#[test]
fn what_should_be_there_is_read_from_files() {
    let routes = "route: {receiver: a}\nreceivers: [{name: a}, {name: b}]\n";
    let files = [
        ("rules.yaml", RULES),
        ("routes.yaml", routes),
        ("broken.yaml", "groups: ["),
    ];
    let files = files.map(|(name, text)| SourceFile::new(name, text));
    let (expected, wrong) = Expected::read(files.to_vec());
    let names: Vec<&str> = expected.rules.iter().map(|(file, _)| file.name()).collect();
    assert_eq!(names, ["rules.yaml", "broken.yaml"]);
    assert_eq!(expected.receivers, ["a", "b"]);
    let wrong: Vec<&str> = wrong.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(wrong, ["broken.yaml"]);
}
