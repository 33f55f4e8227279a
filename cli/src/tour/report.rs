//! What a tour measured: as a table, as a document, and as a page with pictures that needs nothing but itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use opsctl_drills::report::canary;
use opsctl_load::{Rate, Summary};
use pictures::{Axis, Badge, Figure, Lines, Mark, Page, Series, Shape, Tone, Unit};
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
    rate: Rate,
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
    rate: String,
    up_seconds: f64,
    failed: bool,
    acts: &'a [Act],
    traffic: Option<&'a Summary>,
}

impl Report {
    /// An empty report of a tour in `folder` whose services took `up_took` to be ready.
    pub(super) fn new(began: Timestamp, folder: &Path, rate: Rate, up_took: Duration) -> Self {
        Self {
            began,
            folder: folder.to_path_buf(),
            rate,
            up_took,
            acts: Vec::new(),
            samples: Vec::new(),
            traffic: None,
        }
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
            let mut rows = act
                .measured
                .iter()
                .map(|measure| format!("{}: {}", measure.name, measure.value));
            let errors = (act.errors.to_string(), (act.errors > 0).then_some(Style::Warning));
            table.styled(vec![
                (
                    act.name.to_owned(),
                    Some(if act.failed.is_some() {
                        Style::Error
                    } else {
                        Style::Hint
                    }),
                ),
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
            rate: self.rate.to_string(),
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
        let verdict = if self.failed() {
            Badge::new("failed", Tone::Bad)
        } else {
            Badge::new("everything did what it should", Tone::Good)
        };
        let mut page = Page::new("opsctl tour")
            .badge(verdict)
            .lead(&format!(
                "Four services, two instances each, {} from customers, {} to start. Every figure was measured in this run.",
                self.rate,
                seconds(self.up_took.as_secs_f64())
            ))
            .figure(&self.requests())
            .figure(&self.response_times());
        let rows = self.acts.iter().map(|act| {
            vec![
                act.name.to_owned(),
                act.requests.to_string(),
                act.errors.to_string(),
                seconds(act.p95_seconds),
            ]
        });
        page = page
            .section("Acts")
            .table(&["Act", "Requests", "Errors", "p95"], rows.collect());
        for act in &self.acts {
            page = section(page, act);
        }
        page.footer(&format!("{}, in {}", self.began, self.folder.display()))
            .render()
    }

    fn requests(&self) -> Figure {
        let count = |name: &str, tone, wanted: fn(&Sample) -> bool| {
            let count = self.by_second(|samples| samples.iter().filter(|sample| wanted(sample)).count() as f64);
            Series {
                shape: Shape::Step,
                ..Series::of(name, tone, count)
            }
        };
        let chart = Lines {
            label: "requests per second".to_owned(),
            series: vec![
                count("answered well", Tone::Good, |sample| sample.success),
                count("errors", Tone::Bad, |sample| !sample.success),
            ],
            ..self.over_time()
        };
        Figure {
            title: "Requests and errors per second".to_owned(),
            chart: Box::new(chart),
            height: 280.0,
            caption: "What customers got, each second; the shaded acts are named above.".to_owned(),
        }
    }

    fn response_times(&self) -> Figure {
        let quantile = |ratio: f64| {
            self.by_second(|samples| {
                let mut times: Vec<_> = samples.iter().filter(|s| s.success).map(|s| s.response_time).collect();
                times.sort_unstable();
                let index = (times.len() as f64 * ratio).ceil() as usize;
                times
                    .get(index.saturating_sub(1))
                    .map_or(f64::NAN, Duration::as_secs_f64)
            })
        };
        let chart = Lines {
            unit: Unit::named("s"),
            series: vec![
                Series::of("median", Tone::Plain, quantile(0.5)),
                Series::of("95th percentile", Tone::Other, quantile(0.95)),
            ],
            ..self.over_time()
        };
        Figure {
            title: "Response times per second".to_owned(),
            chart: Box::new(chart),
            height: 280.0,
            caption: "Response times of answered requests, from the moment at which they were due.".to_owned(),
        }
    }

    /// What both pictures share: seconds from the begin, and the acts.
    fn over_time(&self) -> Lines {
        Lines {
            axis: Axis::Number("seconds".to_owned()),
            low: Some(0.0),
            marks: self.marks(),
            bands: self.bands(),
            ..Lines::default()
        }
    }

    /// One point for each whole second in which requests were due.
    fn by_second(&self, figure: impl Fn(&[Sample]) -> f64) -> Vec<(f64, f64)> {
        let mut seconds: BTreeMap<u64, Vec<Sample>> = BTreeMap::new();
        for sample in &self.samples {
            seconds.entry(sample.due.as_secs()).or_default().push(*sample);
        }
        // The last second is cut short by the end of the tour and would look like a loss.
        seconds.pop_last();
        seconds
            .into_iter()
            .map(|(second, samples)| (second as f64, figure(&samples)))
            .collect()
    }

    fn marks(&self) -> Vec<Mark> {
        self.acts
            .iter()
            .map(|act| {
                let tone = if act.failed.is_some() { Tone::Bad } else { Tone::Plain };
                Mark::new(act.from_seconds, act.name, tone)
            })
            .collect()
    }

    /// Every other act is shaded, so that one sees where one ends.
    fn bands(&self) -> Vec<(f64, f64)> {
        self.acts
            .iter()
            .skip(1)
            .step_by(2)
            .map(|act| (act.from_seconds, act.to_seconds))
            .collect()
    }
}

/// One line for an act that just ended.
pub(super) fn line(paint: Paint, act: &Act) -> String {
    let mark = paint.mark(if act.failed.is_some() {
        Style::Error
    } else {
        Style::Done
    });
    let command = act.command.as_deref().unwrap_or(act.name);
    format!("{mark} {command}: {} requests, {} errors", act.requests, act.errors)
}

/// The act's own section.
fn section(mut page: Page, act: &Act) -> Page {
    let badge = if act.failed.is_some() {
        Badge::new("failed", Tone::Bad)
    } else {
        Badge::new("as it should", Tone::Good)
    };
    page = page.section_with(act.name, &badge);
    if let Some(command) = &act.command {
        page = page.code(command);
    }
    if let Some(why) = &act.failed {
        page = page.text(why);
    }
    let facts: Vec<_> = act
        .measured
        .iter()
        .map(|measure| (measure.name, measure.value.as_str()))
        .collect();
    page = page.facts(&facts);
    // Only canaries have pictures of their own; other documents are of another schema.
    for figure in canary::figures(&act.document).into_iter().flatten() {
        page = page.figure(&figure);
    }
    page
}
