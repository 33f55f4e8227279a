//! Routing tests with a real Alertmanager.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::live::{Access, Alertmanager};
use alerts::routing::{self, Report};
use jiff::{Timestamp, tz::TimeZone};
use peers::{Server, http, servers};
use serde_json::json;
use tokio::time::{Instant, sleep};

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
    let tests = r"
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
";
    let Some(report) = run(CONFIG, tests, "alerts_go_where_the_routes_lead").await else {
        return;
    };
    assert!(report.passed(), "{}", report.text());
    assert_eq!(report.suites[0].never_reached, ["{} / {team=\"old\"}"]);
    assert_eq!(report.suites[0].routes, 7);
}

#[tokio::test]
async fn what_is_not_as_expected_is_said() {
    let tests = r"
coverage: {min: 100}
tests:
- {name: one, alert: {alertname: A, team: pay}, receivers: [pay]}
- {name: two, alert: {alertname: A, severity: page}, firing: [{alertname: ClusterDown}], receivers: [all]}
- {name: three, alert: {alertname: A, severity: page}, receivers: [all], inhibited_by: [{alertname: ClusterDown}]}
- {name: four, alert: {alertname: A}, at: 2026-03-02T23:30:00Z, receivers: [all], muted_by: [nights]}
- {name: five, alert: {alertname: A}, receivers: [all]}
";
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

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// A range that lies near a value, and within bounds.
    fn range(&mut self, near: i64, least: i64, most: i64) -> (i64, i64) {
        let from = (near - 2 + self.roll(5).cast_signed()).clamp(least, most);
        (from, (from + self.roll(3).cast_signed()).min(most))
    }

    fn interval(&mut self, now: Timestamp) -> serde_json::Value {
        const ZONES: [&str; 5] = [
            "UTC",
            "Australia/Sydney",
            "America/St_Johns",
            "Pacific/Kiritimati",
            "Europe/Berlin",
        ];
        const DAYS: [&str; 7] = [
            "sunday",
            "monday",
            "tuesday",
            "wednesday",
            "thursday",
            "friday",
            "saturday",
        ];
        let zone = ZONES[self.roll(5) as usize];
        let local = now.to_zoned(TimeZone::get(zone).unwrap());
        let mut entry = json!({"location": zone});
        if self.roll(3) == 0 {
            let (from, to) = self.range(local.hour().into(), 0, 23);
            entry["times"] = json!([{"start_time": format!("{from:02}:00"), "end_time": format!("{:02}:00", to + 1)}]);
        }
        if self.roll(3) == 0 {
            let (from, to) = self.range(local.weekday().to_sunday_zero_offset().into(), 0, 6);
            entry["weekdays"] = json!([format!("{}:{}", DAYS[from as usize], DAYS[to as usize])]);
        }
        if self.roll(3) == 0 {
            let (from, to) = self.range(local.day().into(), 1, 31);
            entry["days_of_month"] = json!([format!("{from}:{to}")]);
        } else if self.roll(2) == 0 {
            let (from, to) = self.range(i64::from(local.day()) - i64::from(local.days_in_month()) - 1, -31, -1);
            entry["days_of_month"] = json!([format!("{from}:{to}")]);
        }
        if self.roll(4) == 0 {
            let (from, to) = self.range(local.month().into(), 1, 12);
            entry["months"] = json!([format!("{from}:{to}")]);
        }
        if self.roll(4) == 0 {
            let (from, to) = self.range(local.year().into(), 1970, 3000);
            entry["years"] = json!([format!("{from}:{to}")]);
        }
        entry
    }
}

/// Each interval mutes one route, and another is muted whenever it does not hold: Alertmanager says one or the other.
#[tokio::test]
async fn the_calendar_is_alertmanagers() {
    const TEST: &str = "the_calendar_is_alertmanagers";
    const INTERVALS: usize = 150;
    let seed = Timestamp::now().as_nanosecond() as u64;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let now = Timestamp::now();
    let names: Vec<String> = (0..INTERVALS).map(|number| format!("interval-{number}")).collect();
    let intervals: Vec<_> = names
        .iter()
        .map(|name| json!({"name": name, "time_intervals": [dice.interval(now)]}))
        .collect();
    let route = |name: &str, key: &str| json!({"receiver": "nobody", "matchers": [format!("i=\"{name}\""), format!("k=\"{key}\"")], key: [name]});
    let routes: Vec<_> = names
        .iter()
        .flat_map(|name| [route(name, "mute_time_intervals"), route(name, "active_time_intervals")])
        .collect();
    let config = json!({
        "route": {"receiver": "nobody", "group_by": ["..."], "group_wait": "1ms", "routes": routes},
        "receivers": [{"name": "nobody"}],
        "time_intervals": intervals,
    });
    let Some(server) = Server::start(servers::Alertmanager::new(config.to_string()), TEST).await else {
        return;
    };
    let holding = || routing::holding(Path::new("config"), &config.to_string(), Timestamp::now()).unwrap();
    let before = holding();
    let alerts: Vec<_> = names
        .iter()
        .flat_map(|name| {
            ["mute_time_intervals", "active_time_intervals"].map(|key| json!({"labels": {"i": name, "k": key}}))
        })
        .collect();
    let address = server.address("http");
    let posted = http::post(
        address,
        "/api/v2/alerts",
        "application/json",
        &json!(alerts).to_string(),
    )
    .await
    .unwrap();
    assert_eq!(posted.status, 200, "{}", posted.body);
    let alertmanager = Alertmanager::new(&format!("http://{address}"), Access::Open, None).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let theirs: BTreeMap<String, bool> = loop {
        let groups = alertmanager.groups().await.unwrap();
        let muted = groups
            .iter()
            .flat_map(|group| &group.alerts)
            .filter(|alert| !alert.status.muted_by.is_empty());
        let theirs: BTreeMap<String, bool> = muted
            .map(|alert| (alert.labels["i"].clone(), alert.labels["k"] == "mute_time_intervals"))
            .collect();
        if theirs.len() == INTERVALS {
            break theirs;
        }
        assert!(Instant::now() < deadline, "{} of {INTERVALS} are known", theirs.len());
        sleep(Duration::from_millis(50)).await;
    };
    // An hour may have ended in between.
    let after = holding();
    for (name, theirs) in theirs {
        if before[&name] == after[&name] {
            let of = config["time_intervals"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["name"] == json!(name));
            assert_eq!(theirs, before[&name], "{name} at {now}: {of:?}");
        }
    }
    let holds = before.values().filter(|holds| **holds).count();
    assert!(holds > 10 && holds < INTERVALS - 10, "{holds} of {INTERVALS} hold");
}
