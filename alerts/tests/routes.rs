//! Routing tests with a real Alertmanager.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::path::PathBuf;

use alerts::routing::{self, Report};

const CONFIG: &str = r##"
global: {slack_api_url: "http://127.0.0.1:1/never"}
route:
  receiver: all
  group_by: [alertname]
  group_wait: 30s
  group_interval: 5m
  routes:
  - {matchers: ['team="pay"'], receiver: audit, continue: true}
  - matchers: ['team="pay"']
    receiver: pay
    routes:
    - {matchers: ['severity="page"'], receiver: pay-pager}
    - {matchers: ['severity="info"'], mute_time_intervals: [nights]}
    - {matchers: ['severity="ticket"'], receiver: desk, active_time_intervals: [office]}
  - {match: {team: old}, receiver: all}
receivers:
- name: all
  slack_configs: [{channel: "#all"}]
- {name: audit}
- {name: pay}
- {name: pay-pager}
- {name: desk}
inhibit_rules:
- {source_matchers: ['alertname="ClusterDown"'], target_matchers: ['severity=~"page|info"'], equal: [cluster]}
time_intervals:
- {name: nights, time_intervals: [{times: [{start_time: "22:00", end_time: "24:00"}, {start_time: "00:00", end_time: "06:00"}]}]}
- {name: office, time_intervals: [{weekdays: ['monday:friday'], times: [{start_time: "09:00", end_time: "17:00"}], location: Europe/Berlin}]}
"##;

async fn run(config: &str, tests: &str, test: &str) -> Option<Report> {
    let program: PathBuf = peers::peer("alertmanager", test)?;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alertmanager.yaml"), config).unwrap();
    let suite = folder.path().join("suite.yaml");
    fs::write(&suite, format!("alertmanager: alertmanager.yaml\n{tests}")).unwrap();
    Some(routing::run(&[suite], &program).await.unwrap())
}

#[tokio::test]
async fn alerts_go_where_the_routes_lead() {
    let tests = r#"
coverage: {min: 80}
tests:
- {name: nobody's, alert: {alertname: A}, receivers: [all]}
- {alert: {alertname: A, team: pay, severity: page}, receivers: [audit, pay-pager], told: [audit, pay-pager]}
- {alert: {alertname: A, team: pay}, receivers: [pay, audit]}
- name: a page while the cluster is down
  alert: {alertname: A, team: pay, severity: page, cluster: eu}
  firing: [{alertname: ClusterDown, cluster: eu}]
  receivers: [audit, pay-pager]
  told: []
  inhibited_by: [{alertname: ClusterDown}]
- name: a page while another cluster is down
  alert: {alertname: A, team: pay, severity: page, cluster: us}
  firing: [{alertname: ClusterDown, cluster: eu}]
  receivers: [audit, pay-pager]
- name: at night
  alert: {alertname: A, team: pay, severity: info}
  at: 2026-03-02T23:30:00Z
  receivers: [audit, pay]
  told: [audit]
  muted_by: [nights]
- name: in the morning
  alert: {alertname: A, team: pay, severity: info}
  at: 2026-03-02T06:00:00Z
  receivers: [audit, pay]
  told: [audit, pay]
- name: a ticket on Monday
  alert: {alertname: A, team: pay, severity: ticket}
  at: 2026-03-02T08:00:00Z
  receivers: [audit, desk]
  told: [audit, desk]
- name: a ticket on Sunday
  alert: {alertname: A, team: pay, severity: ticket}
  at: 2026-03-01T08:00:00Z
  receivers: [audit, desk]
  told: [audit]
  muted_by: [office]
"#;
    let Some(report) = run(CONFIG, tests, "alerts_go_where_the_routes_lead").await else {
        return;
    };
    assert!(report.passed(), "{}", report.text());
    assert_eq!(report.suites[0].never_reached, ["{} / {team=\"old\"}"]);
    assert_eq!(report.suites[0].routes, 7);
}

#[tokio::test]
async fn what_is_not_as_expected_is_said() {
    let tests = r#"
coverage: {min: 100}
tests:
- {name: one, alert: {alertname: A, team: pay}, receivers: [pay]}
- {name: two, alert: {alertname: A, severity: page}, firing: [{alertname: ClusterDown}], receivers: [all]}
- {name: three, alert: {alertname: A, severity: page}, receivers: [all], inhibited_by: [{alertname: ClusterDown}]}
- {name: four, alert: {alertname: A}, at: 2026-03-02T23:30:00Z, receivers: [all], muted_by: [nights]}
- {name: five, alert: {alertname: A}, receivers: [all]}
"#;
    let Some(report) = run(CONFIG, tests, "what_is_not_as_expected_is_said").await else {
        return;
    };
    let wrong: Vec<Vec<&str>> = report.suites[0]
        .tests
        .iter()
        .map(|test| test.wrong.iter().map(String::as_str).collect())
        .collect();
    assert_eq!(wrong[0], ["receivers: expected {\"pay\"}, got {\"audit\", \"pay\"}"]);
    assert_eq!(
        wrong[1],
        ["inhibited_by: expected nothing, got {alertname=\"ClusterDown\"}"]
    );
    assert_eq!(
        wrong[2],
        ["inhibited_by: expected {alertname=\"ClusterDown\"}, got nothing"]
    );
    assert_eq!(wrong[3], ["muted_by: expected {\"nights\"}, got {}"]);
    assert!(wrong[4].is_empty());
    assert!(
        report.suites[0].problems[0].contains("100 % are demanded"),
        "{}",
        report.text()
    );
    assert!(
        report.junit().contains("failures=\"4\" errors=\"1\""),
        "{}",
        report.junit()
    );
}

#[tokio::test]
async fn what_alertmanager_refuses_is_a_problem_of_the_suite() {
    const TEST: &str = "what_alertmanager_refuses_is_a_problem_of_the_suite";
    let tests = "tests: [{alert: {alertname: A}, receivers: [all]}]\n";
    for (config, why) in [
        (
            CONFIG.replace("matchers: ['team=\"pay\"']", "matchers: ['team=']x'"),
            "",
        ),
        (
            CONFIG.replace("mute_time_intervals: [nights]", "mute_time_intervals: [days]"),
            "days",
        ),
        (CONFIG.replace("receiver: desk", "receiver: dsk"), "`dsk`"),
        (CONFIG.replace("continue: true", "contineu: true"), "contineu"),
        ("x".to_owned(), "is a map"),
    ] {
        let timed = tests.replace("receivers", "at: 2026-03-02T23:30:00Z, receivers");
        let Some(report) = run(&config, &timed, TEST).await else {
            return;
        };
        let problems = &report.suites[0].problems;
        assert!(problems.len() == 1 && problems[0].contains(why), "{why}: {problems:?}");
    }
}
