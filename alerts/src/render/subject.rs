//! Whom an alert is about: the labels and links that all of its alerts have. What is asked is not here.

use std::time::Duration;

use manifest::landscape::{Datastore, Landscape, Links, Service};

use super::model::{Alert, Severity};
use super::page::Page;

/// A service, a datastore or a whole environment, with its owner.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    links: &'a Links,
    /// Labels of every alert about it.
    pub(super) labels: Vec<(String, String)>,
}

/// What an alert says of itself, before its subject is known.
pub(super) struct Words {
    pub(super) summary: String,
    pub(super) description: String,
}

impl<'a> Subject<'a> {
    pub(super) fn environment(landscape: &'a Landscape) -> Self {
        Self {
            links: &landscape.links,
            labels: vec![("environment".to_owned(), landscape.environment.clone())],
        }
    }

    pub(super) fn service(landscape: &'a Landscape, service: &Service) -> Self {
        Self::environment(landscape)
            .with("service", Some(&service.name))
            .with("team", service.team.as_deref())
    }

    pub(super) fn datastore(landscape: &'a Landscape, datastore: &Datastore) -> Self {
        Self::environment(landscape)
            .with("datastore", Some(&datastore.name))
            .with("team", landscape.owner_of(&datastore.name))
    }

    fn with(mut self, label: &str, value: Option<&str>) -> Self {
        self.labels
            .extend(value.map(|value| (label.to_owned(), value.to_owned())));
        self
    }

    /// An alert about it, that has to hold for two minutes and goes on for five after it was last seen.
    pub(super) fn alert(&self, name: &'static str, severity: Severity, expr: impl Into<String>, words: Words) -> Alert {
        let mut labels = self.labels.clone();
        labels.push(("severity".to_owned(), severity.as_str().to_owned()));
        let variables: Vec<(&str, &str)> = self
            .labels
            .iter()
            .filter(|(label, _)| label != "team")
            .map(|(label, value)| (label.as_str(), value.as_str()))
            .collect();
        let mut annotations = vec![
            ("summary".to_owned(), words.summary),
            ("description".to_owned(), words.description),
            ("runbook_url".to_owned(), self.links.runbook(name)),
        ];
        let board = Page::of(name).and_then(|page| self.links.board(page.board, &variables));
        annotations.extend(board.map(|address| ("dashboard_url".to_owned(), address)));
        Alert {
            name,
            expr: expr.into(),
            hold: Duration::from_mins(2),
            keep: Duration::from_mins(5),
            labels,
            annotations,
        }
    }
}

impl Alert {
    /// The same with other times.
    pub(super) fn times(mut self, hold_minutes: u64, keep_minutes: u64) -> Self {
        self.hold = Duration::from_mins(hold_minutes);
        self.keep = Duration::from_mins(keep_minutes);
        self
    }

    /// The same with a label more.
    pub(super) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }
}
