//! Suite files: alerts, and where an Alertmanager's configuration should lead them. Runs nothing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::RoutingError;
use crate::bounded;
use crate::test::Labels;

/// Larger files are refused before they are read.
pub(super) const LARGEST: u64 = 16 << 20;

/// A suite file.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Where it is.
    pub path: PathBuf,
    /// The configuration, relative to the suite's folder.
    pub alertmanager: PathBuf,
    /// How many of the routes, in per cent, its tests must reach.
    pub coverage: f64,
    /// Its tests.
    pub tests: Vec<Test>,
}

/// One alert, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Test {
    /// Where it begins.
    pub line: usize,
    /// What it is called; the alert's labels without a name.
    pub name: String,
    /// The alert.
    pub alert: Labels,
    /// Other alerts that fire.
    pub firing: Vec<Labels>,
    /// When. Without a time no time interval is looked at.
    pub at: Option<Timestamp>,
    /// The receivers that its routes lead to, in any order.
    pub receivers: Vec<String>,
    /// Those of them that are told in the end. Not asked where it is not said.
    pub told: Option<Vec<String>>,
    /// Alerts of which one keeps it from being told; labels that are not named may be there. None: nothing inhibits it.
    pub inhibited_by: Vec<Labels>,
    /// Time intervals that keep it from being told.
    pub muted_by: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSuite {
    alertmanager: PathBuf,
    #[serde(default)]
    coverage: RawCoverage,
    tests: Vec<Spanned<RawTest>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawCoverage {
    min: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    #[serde(default)]
    name: String,
    alert: Labels,
    #[serde(default)]
    firing: Vec<Labels>,
    at: Option<Timestamp>,
    receivers: Vec<String>,
    told: Option<Vec<String>>,
    #[serde(default)]
    inhibited_by: Vec<Labels>,
    #[serde(default)]
    muted_by: Vec<String>,
}

impl Suite {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RoutingError::Unreadable`], [`RoutingError::Wrong`].
    pub fn read(path: &Path) -> Result<Self, RoutingError> {
        Self::parse(path, &text(path)?)
    }

    /// Reads the text of the file at `path`, which is not opened.
    ///
    /// # Errors
    /// [`RoutingError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, RoutingError> {
        let raw: RawSuite = bounded::yaml(text).map_err(|error| RoutingError::Wrong {
            path: path.to_owned(),
            line: error.location().map_or(0, |location| location.line() as usize),
            what: error.without_snippet().to_string(),
        })?;
        let tests = raw.tests.into_iter().map(|test| {
            let line = test.referenced.line() as usize;
            let raw = test.value;
            Test {
                line,
                name: if raw.name.is_empty() {
                    show(&raw.alert)
                } else {
                    raw.name
                },
                alert: raw.alert,
                firing: raw.firing,
                at: raw.at,
                receivers: raw.receivers,
                told: raw.told,
                inhibited_by: raw.inhibited_by,
                muted_by: raw.muted_by,
            }
        });
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            path: path.to_owned(),
            alertmanager: folder.join(raw.alertmanager),
            coverage: raw.coverage.min,
            tests: tests.collect(),
        })
    }
}

/// The text of a file that is not too large.
pub(super) fn text(path: &Path) -> Result<String, RoutingError> {
    let unreadable = |source| RoutingError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let text = bounded::read(path, LARGEST).map_err(unreadable)?;
    text.ok_or_else(|| RoutingError::Wrong {
        path: path.to_owned(),
        line: 0,
        what: format!("it is larger than {LARGEST} bytes"),
    })
}

/// Labels in PromQL's notation.
pub(super) fn show(labels: &Labels) -> String {
    let all: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", all.join(", "))
}
