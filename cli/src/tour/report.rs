//! What a tour measured: as a table, as a document, and as a page with pictures that needs nothing but itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use opsctl_load::Summary;
use serde::Serialize;

use super::act::Act;
use super::traffic::Sample;
use crate::error::Failure;
use crate::output::{Paint, Style, Table, seconds};

/// The `schema` of the tour's document.
const SCHEMA: &str = "opsctl.tour/v1";

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    began: Timestamp,
    folder: PathBuf,
    rate: &'static str,
    up_took: Duration,
    acts: Vec<Act>,
    /// Every answer that customers got.
    pub(super) samples: Vec<Sample>,
    /// The load engine's account of them.
    pub(super) traffic: Option<Summary>,
}

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    began_at: Timestamp,
    folder: String,
    report: String,
    rate: &'static str,
    up_seconds: f64,
    failed: bool,
    acts: &'a [Act],
    traffic: Option<&'a Summary>,
}

impl Report {
    /// An empty report of a tour in `folder` whose services took `up_took` to be ready.
    pub(super) fn new(began: Timestamp, folder: &Path, rate: &'static str, up_took: Duration) -> Self {
        Self { began, folder: folder.to_path_buf(), rate, up_took, acts: Vec::new(), samples: Vec::new(), traffic: None }
    }

    /// The next act.
    pub(super) fn add(&mut self, act: Act) {
        self.acts.push(act);
    }

    /// Whether an act did not do what it should.
    pub(super) fn failed(&self) -> bool {
        self.acts.iter().any(|act| act.failed.is_some())
    }

    /// The table at the end.
    pub(super) fn text(&self, paint: Paint, width: Option<usize>) -> String {
        let mut table = Table::new(&["act", "requests", "errors", "p95", "measured"]);
        for act in &self.acts {
            let mut rows = act.measured.iter().map(|measure| format!("{}: {}", measure.name, measure.value));
            let errors = (act.errors.to_string(), (act.errors > 0).then_some(Style::Warning));
            table.styled(vec![
                (act.name.to_owned(), Some(if act.failed.is_some() { Style::Error } else { Style::Hint })),
                (act.requests.to_string(), None),
                errors,
                (seconds(act.p95_seconds), None),
                (rows.next().unwrap_or_default(), None),
            ]);
            for row in rows {
                let empty = || (String::new(), None);
                table.styled(vec![empty(), empty(), empty(), empty(), (row, None)]);
            }
        }
        let mut text = table.render(paint, width);
        for act in &self.acts {
            if let Some(why) = &act.failed {
                text.push_str(&format!("{} {}: {why}\n", paint.mark(Style::Error), act.name));
            }
        }
        text
    }

    /// The document for scripts.
    pub(super) fn document(&self, page: &Path) -> Document<'_> {
        Document {
            schema: SCHEMA,
            r#type: "tour",
            began_at: self.began,
            folder: self.folder.display().to_string(),
            report: page.display().to_string(),
            rate: self.rate,
            up_seconds: self.up_took.as_secs_f64(),
            failed: self.failed(),
            acts: &self.acts,
            traffic: self.traffic.as_ref(),
        }
    }

    /// Writes the page into `folder` and says where it is.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf, Failure> {
        let file = folder.join("tour.html");
        fs::write(&file, self.page())
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))
            .map_err(|error| Failure::io(format!("could not write `{}`", file.display()), &error))?;
        Ok(file)
    }

    fn page(&self) -> String {
        String::new()
    }
}

/// One line for an act that just ended.
pub(super) fn line(paint: Paint, act: &Act) -> String {
    let mark = paint.mark(if act.failed.is_some() { Style::Error } else { Style::Done });
    let command = act.command.as_deref().unwrap_or(act.name);
    format!("{mark} {command}: {} requests, {} errors", act.requests, act.errors)
}
