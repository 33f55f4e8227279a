//! Tests of an Alertmanager's configuration: where alerts are led, what inhibits them, and what mutes them at a time.
//! Every answer is a real Alertmanager's, which runs on loopback for the length of the tests.
//!
//! Two things are changed in the configuration before it runs, see `config`. Receivers become webhooks of ours, one a
//! route: nobody real is told, and it is seen which routes are never reached. Time intervals become "always" and
//! "never", as they are at the time of the test, since a running Alertmanager knows no time but now.
//!
//! Nothing is concluded from silence: an alert has been received by a webhook, or Alertmanager says what keeps it.

mod calendar;
mod config;
mod report;
mod server;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};

pub use report::{Report, SuiteReport, TestReport};
pub use suite::{Suite, Test};

use crate::live::{AlertGroup, EndpointError, ReceivedAlert};
use crate::test::Labels;
use config::{Config, SENTINEL, TEST};
use server::{Running, Told};

/// How many Alertmanagers run at one time.
const AT_ONCE: usize = 2;
/// How long it may take until it is known what becomes of every alert.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why routes cannot be tested.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// A suite or a configuration cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A suite or a configuration is not of the expected form.
    #[error("{}:{line}: {what}", .path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Where; 0 where that is not known.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Files and ports for Alertmanager cannot be had.
    #[error("files and ports for Alertmanager cannot be had")]
    Scratch(#[source] std::io::Error),
    /// Alertmanager cannot be started.
    #[error("Alertmanager ({}) cannot be started", .path.display())]
    Program {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Alertmanager takes the configuration for wrong.
    #[error("Alertmanager refuses the configuration: {words}")]
    Refused {
        /// The end of its log.
        words: String,
    },
    /// Alertmanager started and does not answer.
    #[error("Alertmanager does not answer: {words}")]
    Silent {
        /// The end of its log.
        words: String,
    },
    /// Alertmanager did not answer a question.
    #[error("Alertmanager did not answer")]
    Asked(#[source] EndpointError),
    /// It did not become known in time what becomes of an alert.
    #[error(
        "Alertmanager did not say within {} s what becomes of {alert}; before 0.28 it does not say what a time interval \
         mutes",
        PATIENCE.as_secs()
    )]
    Undecided {
        /// Which alert.
        alert: String,
    },
}

/// What became of an alert.
#[derive(Debug, Default)]
struct Fate {
    /// The routes that it took, and on each of them the time intervals that mute it.
    routes: BTreeMap<usize, Vec<String>>,
    /// The alerts that inhibit it.
    inhibited_by: Vec<Labels>,
}

/// Runs suites with the Alertmanager `program`.
///
/// # Errors
/// [`RoutingError`] where Alertmanager cannot be run. What is wrong with a suite stands in the report.
pub async fn run(suites: &[PathBuf], program: &Path) -> Result<Report, RoutingError> {
    let mut reports = Vec::new();
    for path in suites {
        let read = Suite::read(path).and_then(|suite| {
            let text = suite::text(&suite.alertmanager)?;
            let config = config(&suite.alertmanager, &text)?;
            Ok((suite, config))
        });
        reports.push(match read {
            Ok((suite, config)) => match judge(&suite, &config, program).await {
                Err(RoutingError::Refused { words }) => broken(
                    path,
                    format!("Alertmanager refuses {}: {words}", suite.alertmanager.display()),
                ),
                other => other?,
            },
            Err(RoutingError::Unreadable { path: file, source }) => {
                broken(path, format!("{} cannot be read: {source}", file.display()))
            }
            Err(error) => broken(path, error.to_string()),
        });
    }
    Ok(Report {
        schema: "opsctl.xyz/v1",
        suites: reports,
    })
}

/// Which time intervals of an Alertmanager's configuration hold at an instant, by name.
///
/// # Errors
/// [`RoutingError::Wrong`] where the configuration, called `path` in the error, cannot be read.
pub fn holding(path: &Path, text: &str, at: Timestamp) -> Result<BTreeMap<String, bool>, RoutingError> {
    Ok(config(path, text)?
        .holding(Some(at))
        .into_iter()
        .map(|(name, holds)| (name.to_owned(), holds))
        .collect())
}

fn config(path: &Path, text: &str) -> Result<Config, RoutingError> {
    Config::read(text).map_err(|unfit| RoutingError::Wrong {
        path: path.to_owned(),
        line: unfit.line,
        what: unfit.what,
    })
}

fn broken(path: &Path, problem: String) -> SuiteReport {
    SuiteReport {
        path: path.to_owned(),
        problems: vec![problem],
        tests: Vec::new(),
        never_reached: Vec::new(),
        routes: 0,
    }
}

async fn judge(suite: &Suite, config: &Config, program: &Path) -> Result<SuiteReport, RoutingError> {
    // Tests at times at which the same intervals hold share an Alertmanager.
    let mut worlds: BTreeMap<(bool, BTreeMap<&str, bool>), Vec<usize>> = BTreeMap::new();
    for (number, test) in suite.tests.iter().enumerate() {
        worlds
            .entry((test.at.is_some(), config.holding(test.at)))
            .or_default()
            .push(number);
    }
    let runs = worlds.iter().map(|((timed, holding), numbers)| async move {
        let configure = |url: &str| config.rewritten(url, holding, *timed);
        let running = server::start(program, configure).await?;
        fates(&running, suite, numbers).await
    });
    let mut all: BTreeMap<usize, Fate> = BTreeMap::new();
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(fates) = runs.next().await {
        all.extend(fates?);
    }
    let mut reached = BTreeSet::new();
    let none = Fate::default();
    let tests = suite.tests.iter().enumerate().map(|(number, test)| {
        let fate = all.get(&number).unwrap_or(&none);
        reached.extend(fate.routes.keys().copied());
        TestReport {
            line: test.line,
            name: test.name.clone(),
            routes: fate
                .routes
                .keys()
                .filter_map(|route| Some(config.routes.get(*route)?.path.clone()))
                .collect(),
            wrong: wrong(test, fate, config),
        }
    });
    let tests = tests.collect();
    let missed = (0..config.routes.len()).filter(|route| !reached.contains(route));
    let never_reached: Vec<String> = missed.map(|route| config.routes[route].path.clone()).collect();
    let share = 100.0 * reached.len() as f64 / config.routes.len().max(1) as f64;
    let few = (share < suite.coverage).then(|| {
        format!(
            "{share:.0} % of the routes are reached, {:.0} % are demanded",
            suite.coverage
        )
    });
    Ok(SuiteReport {
        path: suite.path.clone(),
        problems: few.into_iter().collect(),
        tests,
        never_reached,
        routes: config.routes.len(),
    })
}

/// What is not as the test expects.
fn wrong(test: &Test, fate: &Fate, config: &Config) -> Vec<String> {
    let receiver = |route: &usize| config.routes.get(*route).map_or("", |route| route.receiver.as_str());
    let sorted = |names: &mut dyn Iterator<Item = String>| names.collect::<BTreeSet<_>>();
    let inhibited = !fate.inhibited_by.is_empty();
    let open = fate.routes.iter().filter(|(_, muted)| muted.is_empty() && !inhibited);
    let mut found = Vec::new();
    let rows = [
        (
            "receivers",
            Some(sorted(&mut test.receivers.iter().cloned())),
            sorted(&mut fate.routes.keys().map(receiver).map(str::to_owned)),
        ),
        (
            "told",
            test.told.as_ref().map(|told| sorted(&mut told.iter().cloned())),
            sorted(&mut open.map(|(route, _)| receiver(route).to_owned())),
        ),
        (
            "muted_by",
            // What is inhibited is not looked at further.
            (!inhibited || !test.muted_by.is_empty()).then(|| sorted(&mut test.muted_by.iter().cloned())),
            sorted(&mut fate.routes.values().flatten().cloned()),
        ),
    ];
    for (key, expected, got) in rows {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            found.push(format!("{key}: expected {expected:?}, got {got:?}"));
        }
    }
    let fits = |one: &Labels, alert: &Labels| one.iter().all(|(name, value)| alert.get(name) == Some(value));
    let named = test
        .inhibited_by
        .iter()
        .any(|one| fate.inhibited_by.iter().any(|alert| fits(one, alert)));
    let as_expected = if test.inhibited_by.is_empty() {
        !inhibited
    } else {
        named
    };
    if !as_expected {
        let show = |all: &[Labels]| match all {
            [] => "nothing".to_owned(),
            all => all.iter().map(suite::show).collect::<Vec<_>>().join(", "),
        };
        found.push(format!(
            "inhibited_by: expected {}, got {}",
            show(&test.inhibited_by),
            show(&fate.inhibited_by)
        ));
    }
    found
}

/// Gives an Alertmanager the alerts of some tests, and waits until it is known what becomes of each.
async fn fates(running: &Running, suite: &Suite, numbers: &[usize]) -> Result<Vec<(usize, Fate)>, RoutingError> {
    let tagged = |labels: &Labels, number: usize| {
        let mut labels = labels.clone();
        labels.insert(TEST.to_owned(), number.to_string());
        labels
    };
    let others = numbers
        .iter()
        .flat_map(|number| suite.tests[*number].firing.iter().map(|labels| tagged(labels, *number)));
    post(running, others.collect()).await?;
    let sentinel = |role: &str| {
        Labels::from([
            ("alertname".to_owned(), role.to_owned()),
            (SENTINEL.to_owned(), role.to_owned()),
        ])
    };
    post(running, vec![sentinel("source")]).await?;
    post(running, vec![sentinel("target")]).await?;
    let deadline = Instant::now() + PATIENCE;
    // It takes alerts in their order: when it has seen the last, it has seen all that may inhibit.
    let target = sentinel("target");
    loop {
        let alerts = running.client.alerts().await.map_err(RoutingError::Asked)?;
        if alerts
            .iter()
            .any(|alert| alert.labels == target && !alert.status.inhibited_by.is_empty())
        {
            break;
        }
        wait(deadline, &target).await?;
    }
    let mut tested: Vec<(usize, Labels)> = numbers
        .iter()
        .map(|number| (*number, tagged(&suite.tests[*number].alert, *number)))
        .collect();
    post(running, tested.iter().map(|(_, labels)| labels.clone()).collect()).await?;
    let mut fates = Vec::new();
    loop {
        let (alerts, groups) = tokio::join!(running.client.alerts(), running.client.groups());
        let seen = Seen::new(
            alerts.map_err(RoutingError::Asked)?,
            groups.map_err(RoutingError::Asked)?,
        );
        tested.retain(|(number, labels)| match seen.fate(labels, &running.told) {
            Some(fate) => {
                fates.push((*number, fate));
                false
            }
            None => true,
        });
        let Some((_, undecided)) = tested.first() else {
            return Ok(fates);
        };
        wait(deadline, undecided).await?;
    }
}

async fn wait(deadline: Instant, alert: &Labels) -> Result<(), RoutingError> {
    if Instant::now() > deadline {
        return Err(RoutingError::Undecided {
            alert: suite::show(alert),
        });
    }
    sleep(LOOK_EVERY).await;
    Ok(())
}

/// What Alertmanager says at one time.
struct Seen {
    alerts: BTreeMap<Labels, ReceivedAlert>,
    /// By fingerprint.
    names: BTreeMap<String, Labels>,
    /// The time intervals that mute an alert on a route.
    muted: BTreeMap<(usize, Labels), Vec<String>>,
}

impl Seen {
    fn new(alerts: Vec<ReceivedAlert>, groups: Vec<AlertGroup>) -> Self {
        let mut muted = BTreeMap::new();
        for group in groups {
            let Some(route) = config::route(&group.receiver.name) else {
                continue;
            };
            muted.extend(
                group
                    .alerts
                    .into_iter()
                    .map(|alert| ((route, alert.labels), alert.status.muted_by)),
            );
        }
        Self {
            names: alerts
                .iter()
                .map(|alert| (alert.fingerprint.clone(), untagged(alert)))
                .collect(),
            alerts: alerts.into_iter().map(|alert| (alert.labels.clone(), alert)).collect(),
            muted,
        }
    }

    /// What became of an alert; nothing as long as that is not known.
    fn fate(&self, labels: &Labels, told: &Told) -> Option<Fate> {
        let alert = self.alerts.get(labels)?;
        let inhibitors = alert
            .status
            .inhibited_by
            .iter()
            .filter_map(|fingerprint| self.names.get(fingerprint));
        let mut fate = Fate {
            routes: BTreeMap::new(),
            inhibited_by: inhibitors.cloned().collect(),
        };
        for route in alert
            .receivers
            .iter()
            .filter_map(|receiver| config::route(&receiver.name))
        {
            let muted = self.muted.get(&(route, labels.clone())).cloned().unwrap_or_default();
            if muted.is_empty() && fate.inhibited_by.is_empty() && !told.has(route, labels) {
                return None;
            }
            fate.routes.insert(route, muted);
        }
        Some(fate)
    }
}

fn untagged(alert: &ReceivedAlert) -> Labels {
    let mut labels = alert.labels.clone();
    labels.remove(TEST);
    labels
}

async fn post(running: &Running, alerts: Vec<Labels>) -> Result<(), RoutingError> {
    let alerts: Vec<_> = alerts
        .into_iter()
        .map(|labels| json!({"labels": labels, "endsAt": END}))
        .collect();
    if alerts.is_empty() {
        return Ok(());
    }
    running.client.post_alerts(&alerts).await.map_err(RoutingError::Asked)
}

/// None of them ends while it is tested.
const END: &str = "2999-01-01T00:00:00Z";
