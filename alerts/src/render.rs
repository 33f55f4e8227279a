//! Rules, their tests, Kubernetes objects, Alertmanager's routes and runbook pages, all derived from a landscape: the same
//! landscape gives the same bytes. It reads and writes nothing, and looks at no clock.
//!
//! What each alert asks stands in `slo` (objectives), `requests`, `instruments`, `datastores` and `canary`; beside each
//! stand the cases that show that it fires when it must and is silent when it must not. From where on it fires is data, in
//! [`Thresholds`] and [`BURN_WINDOWS`].

mod alertmanager;
mod canary;
mod check;
mod datastores;
mod error;
mod instruments;
mod kubernetes;
mod layout;
mod model;
mod page;
mod prometheus;
mod requests;
mod runbook;
mod slo;
mod subject;
mod thresholds;
mod traffic;
mod yaml;

use std::collections::BTreeSet;
use std::time::Duration;

use manifest::landscape::{Landscape, Platform, Sli};

pub use error::RenderError;
pub use layout::lines as expression_lines;
pub use model::{Alert, Case, Firing, Group, Record, Rule, RuleFile, STEP, Severity};
pub use page::{PAGES, Page};
pub use runbook::{RunbookError, page as runbook_page};
pub use thresholds::{BURN_WINDOWS, BurnWindow, PERIOD, Thresholds};
pub use yaml::Yaml;

use subject::{Subject, Words};

/// How rules are derived, beyond what the landscape says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// From where on alerts fire.
    pub thresholds: Thresholds,
    /// The file in which Alertmanager finds the address of whoever is to miss the alert that always fires.
    pub watchdog_file: Option<String>,
}

/// What was derived.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The rules: a file for each service and each datastore, and one for the environment.
    pub rules: Vec<RuleFile>,
    /// What was left out and why, for people.
    pub notes: Vec<String>,
    environment: String,
    alertmanager: Yaml,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the folder of the output, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Stands in the first line of every file of rules and routes that was derived, behind a `#`.
pub const WRITTEN: &str = "Written by `opsctl alert render`; edit the catalogue instead.";

/// Derives everything.
pub fn render(landscape: &Landscape, settings: &Settings) -> Result<Rendered, RenderError> {
    check::check(landscape)?;
    let (interval, thresholds) = (
        landscape.evaluation_interval.max(Duration::from_secs(1)),
        &settings.thresholds,
    );
    let (mut rules, mut notes) = (Vec::new(), Vec::new());
    for service in &landscape.services {
        let subject = Subject::service(landscape, service);
        let mut file = RuleFile::empty(
            format!("service-{}", service.name),
            format!("service {} in {}", service.name, landscape.environment),
        );
        if landscape.platform == Platform::Kubernetes {
            file.namespace.clone_from(&service.namespace);
        }
        slo::add(&mut file, service, &subject, interval, thresholds, &mut notes)?;
        requests::add(&mut file, service, &subject, interval, thresholds, &mut notes);
        instruments::add(&mut file, service, &subject, interval, thresholds);
        if matches!(service.sli, Sli::Custom { .. }) {
            notes.push(format!(
                "service `{}`: no tests of the rules about its requests: they are counted in its own way",
                service.name
            ));
        }
        if let Some(stuck) = landscape.canary {
            canary::add(&mut file, service, &subject, landscape.platform, interval, stuck);
        }
        rules.push(file);
    }
    for store in &landscape.datastores {
        let subject = Subject::datastore(landscape, store);
        let mut file = RuleFile::empty(
            format!("datastore-{}", store.name),
            format!("datastore {} in {}", store.name, landscape.environment),
        );
        datastores::add(&mut file, store, &subject, interval, thresholds, &mut notes);
        if !file.groups.is_empty() {
            rules.push(file);
        }
    }
    rules.push(environment(landscape, interval));
    let alertmanager = alertmanager::configuration(landscape, settings.watchdog_file.as_deref(), &mut notes);
    Ok(Rendered {
        rules,
        notes,
        environment: landscape.environment.clone(),
        alertmanager,
    })
}

/// What is there once: the alert that always fires.
fn environment(landscape: &Landscape, interval: Duration) -> RuleFile {
    let mut file = RuleFile::empty(
        "environment".to_owned(),
        format!("environment {}", landscape.environment),
    );
    let words = Words {
        summary: "Alerts come through".to_owned(),
        description: "It always fires. Whoever no longer hears it knows that no alert comes through.".to_owned(),
    };
    let alert = Subject::environment(landscape)
        .alert("Watchdog", Severity::None, "vector(1)", words)
        .times(0, 0);
    let case = Case {
        shows: "it always fires".to_owned(),
        alert: alert.name,
        series: Vec::new(),
        at: STEP,
        pace: STEP,
        fires: vec![alert.firing(&[], "1")],
    };
    file.add("watchdog".to_owned(), interval, vec![(alert, vec![case])]);
    file
}

impl RuleFile {
    fn empty(name: String, about: String) -> Self {
        Self {
            name,
            about,
            namespace: None,
            groups: Vec::new(),
            cases: Vec::new(),
        }
    }

    /// The alerts in it.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.groups
            .iter()
            .flat_map(|group| &group.rules)
            .filter_map(|rule| match rule {
                Rule::Alert(alert) => Some(alert),
                Rule::Record(_) => None,
            })
    }
}

impl Rendered {
    /// Rules for Prometheus, and their tests for promtool beside them, in `tests/`.
    pub fn prometheus(&self) -> Vec<File> {
        let mut files = Vec::new();
        for rules in &self.rules {
            let path = format!("{}.yaml", rules.name);
            files.push(document(&path, &rules.about, &prometheus::rules(rules)));
            for (pace, tests) in prometheus::tests(rules, &format!("../{path}")) {
                let path = format!("tests/{}.{pace}.yaml", rules.name);
                files.push(document(
                    &path,
                    &format!("Tests of the rules about {}", rules.about),
                    &tests,
                ));
            }
        }
        files
    }

    /// The rules as objects of the Prometheus Operator.
    pub fn kubernetes(&self) -> Vec<File> {
        self.rules
            .iter()
            .map(|rules| {
                let object = kubernetes::prometheus_rule(rules, &self.environment);
                document(&format!("{}.yaml", rules.name), &rules.about, &object)
            })
            .collect()
    }

    /// Alertmanager's configuration.
    pub fn alertmanager(&self) -> File {
        let about = format!("who is told of the alerts of {}", self.environment);
        document("alertmanager.yaml", &about, &self.alertmanager)
    }

    /// The pages of all alerts that there are, by name.
    pub fn pages(&self) -> Vec<&'static Page> {
        let names: BTreeSet<&str> = self
            .rules
            .iter()
            .flat_map(RuleFile::alerts)
            .map(|alert| alert.name)
            .collect();
        PAGES.iter().filter(|page| names.contains(page.alert)).collect()
    }
}

fn document(path: &str, about: &str, content: &Yaml) -> File {
    let mut about = about.to_owned();
    about[..1].make_ascii_uppercase();
    File {
        path: path.to_owned(),
        text: content.document(&format!("{WRITTEN}\n{about}.")),
    }
}
