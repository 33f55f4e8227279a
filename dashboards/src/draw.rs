//! A whole board as one picture, or several as one page, from its JSON model and what a Prometheus answers or has answered.
//! It is a preview and not Grafana: what it leaves away is said in the picture. It never makes figures up: a panel without
//! data says that there is none.

mod ask;
mod board;
pub mod data;
mod field;
mod layout;
mod legend;
mod page;
mod panel;
mod resource;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pictures::{Area, LARGEST, Look, Mark, Panel, Sheet, Svg, Theme, Tone};

pub use board::{Board, NotABoard};
use data::{Data, Fixture, Recorder, Span};
pub use page::page;
use panel::Scene;
use variables::Variables;

/// How a board is drawn.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stretch of time, in seconds since 1970.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// Values for variables, by name.
    pub variables: BTreeMap<String, Vec<String>>,
    /// Colours.
    pub theme: Theme,
    /// What ids in the picture begin with; another one for each board of a page.
    pub id: String,
    /// How wide the picture is.
    pub width: f64,
    /// How far scrapes are apart, in seconds: `$__rate_interval` is four of them at least.
    pub scrape: f64,
    /// Whether folded rows are drawn.
    pub unfold: bool,
    /// So many questions are asked at one time.
    pub at_once: usize,
    /// When all answers must be there.
    pub patience: Duration,
}

impl Settings {
    /// The usual, for a stretch of time in seconds since 1970.
    pub fn new(from: f64, to: f64) -> Self {
        Self {
            from,
            to,
            variables: BTreeMap::new(),
            theme: Theme::Light,
            id: "board".to_owned(),
            width: 1280.0,
            scrape: 15.0,
            unfold: false,
            at_once: 6,
            patience: Duration::from_mins(1),
        }
    }

    /// So many samples are asked for, whatever the width is: the questions are the same in every picture, so that one
    /// recording answers them all.
    fn span(&self) -> Span {
        const SAMPLES: f64 = 240.0;
        let ordered = |value: f64| if value.is_finite() { value.clamp(0.0, 1e11) } else { 0.0 };
        let (from, to) = (ordered(self.from), ordered(self.to));
        let to = to.max(from + 1.0);
        // Whole seconds, and not more often than anything was measured.
        let step = ((to - from) / SAMPLES).max(self.scrape).ceil().max(1.0);
        Span { from, to, step }
    }
}

/// How far the asking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Questions that were answered, or were not in time.
    pub answered: usize,
    /// All of them.
    pub questions: usize,
}

/// A board that was drawn.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// Its title.
    pub title: String,
    /// The picture.
    pub svg: Svg,
    /// How many panels it has.
    pub panels: usize,
    /// How many questions were asked.
    pub questions: usize,
    /// What could not be answered, with how often.
    pub failures: Vec<(String, usize)>,
}

/// Draws a board.
pub async fn draw(
    board: &Board,
    data: &dyn Data,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
) -> Drawing {
    let plan = Plan::of(board, data, settings).await;
    let questions = plan.questions();
    let count = questions.len();
    let answers = ask::ask(questions, data, plan.span, settings, progress).await;
    Drawing {
        title: plan.title.clone(),
        svg: plan.paint(board, &answers, settings),
        panels: plan.sections.iter().map(|section| section.panels.len()).sum(),
        questions: count,
        failures: answers.failures(),
    }
}

/// Asks all that the boards ask and keeps the answers, so that they can be drawn without a Prometheus.
pub async fn record(
    boards: &[Board],
    data: &dyn Data,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
) -> Fixture {
    let recorder = Recorder::new(data);
    for board in boards {
        let plan = Plan::of(board, &recorder, settings).await;
        ask::ask(plan.questions(), &recorder, plan.span, settings, progress).await;
    }
    let span = settings.span();
    recorder.fixture(span.from, span.to)
}

/// No variable makes more copies of a row or a panel.
const COPIES: usize = 12;
/// More panels than these are not drawn, copies included.
const PANELS: usize = 400;
/// Around everything.
const MARGIN: f64 = 16.0;
/// Above the first panel.
const HEAD: f64 = 76.0;
/// A headline between panels.
const HEADLINE: f64 = 36.0;

/// All that will be drawn, before anything was asked but the values of variables.
struct Plan<'a> {
    title: String,
    span: Span,
    variables: Variables,
    annotations: Vec<(String, ask::Question)>,
    sections: Vec<Section<'a>>,
}

/// Panels below a headline.
struct Section<'a> {
    title: Option<String>,
    /// What stands behind the headline.
    aside: String,
    panels: Vec<Placed<'a>>,
    rows: u16,
}

/// A panel, for which values, and where.
struct Placed<'a> {
    panel: &'a board::Panel,
    variables: Variables,
    grid: [u16; 4],
}

impl<'a> Plan<'a> {
    async fn of(board: &'a Board, data: &dyn Data, settings: &Settings) -> Self {
        let span = settings.span();
        let variables = ask::variables(board, data, span, settings).await;
        let mut left = PANELS;
        let mut sections = Vec::new();
        for row in &board.rows {
            for variables in copies(row.repeat.as_deref(), &variables) {
                sections.push(Section::of(row, &variables, settings, &mut left));
            }
        }
        Self {
            title: variables.tell(&board.title),
            span,
            annotations: ask::annotations(board, &variables, span),
            variables,
            sections,
        }
    }

    /// Each question once.
    fn questions(&self) -> Vec<ask::Question> {
        let panels = self.sections.iter().flat_map(|section| &section.panels);
        let asked = panels.flat_map(|placed| panel::questions(placed.panel, &placed.variables, self.span));
        let all: BTreeSet<ask::Question> = asked.chain(self.annotations.iter().map(|one| one.1.clone())).collect();
        all.into_iter().collect()
    }

    fn paint(&self, board: &Board, answers: &ask::Answers, settings: &Settings) -> Svg {
        let heights = self.sections.iter().map(Section::height);
        let height = HEAD + heights.sum::<f64>() + MARGIN + 20.0;
        let look = Look::new(
            settings.theme,
            &settings.id,
            settings.width.clamp(320.0, 8000.0),
            height.min(LARGEST),
        );
        let mut sheet = Sheet::new(&look, &self.title, &board.description);
        let time = format!(
            "{} to {} UTC",
            pictures::moment(self.span.from),
            pictures::moment(self.span.to)
        );
        // On a page the heading says it already.
        let title = if settings.theme == Theme::Page { "" } else { &self.title };
        sheet.title((MARGIN, 32.0), title, &time);
        sheet.line((MARGIN, 54.0), &self.told(board));
        let marks = self.marks(answers);
        let room = look.width - MARGIN * 2.0;
        let (mut top, mut hidden) = (HEAD, 0);
        for section in &self.sections {
            if let Some(title) = &section.title {
                sheet.heading(Area::new(MARGIN, top, room, HEADLINE - 6.0), title, &section.aside);
                top += HEADLINE;
            }
            for placed in &section.panels {
                let area = layout::area(placed.grid, (MARGIN, top), room);
                if area.bottom() > look.height {
                    hidden += 1;
                    continue;
                }
                let scene = Scene {
                    panel: placed.panel,
                    variables: &placed.variables,
                    answers,
                    span: self.span,
                    marks: &marks,
                };
                let (chart, note) = panel::draw(&scene);
                let title = placed.variables.tell(&placed.panel.title);
                sheet.panel(area, &Panel { title, chart, note });
            }
            top += layout::height(section.rows);
        }
        let mut last = "A preview by opsctl, not by Grafana.".to_owned();
        if hidden > 0 {
            last = format!("{hidden} more panels have no room. {last}");
        }
        sheet.line((MARGIN, look.height - 12.0), &last);
        sheet.finish()
    }

    /// The values of variables in a line.
    fn told(&self, board: &Board) -> String {
        let names = board
            .variables
            .iter()
            .filter(|variable| variable["type"] != "datasource");
        let told = names.filter_map(|variable| {
            let name = variable["name"].as_str()?;
            let value = self.variables.tell(&format!("${{{name}}}"));
            (!value.is_empty()).then(|| format!("{name}: {value}"))
        });
        told.collect::<Vec<_>>().join("   ")
    }

    /// The moments at which an annotation begins to hold.
    fn marks(&self, answers: &ask::Answers) -> Vec<Mark> {
        const MOST: usize = 20;
        let mut marks = Vec::new();
        for (name, question) in &self.annotations {
            for series in answers.series(question).unwrap_or_default() {
                let mut before = f64::NEG_INFINITY;
                for (at, value) in &series.points {
                    if *value != 0.0 && value.is_finite() {
                        // A sample that does not follow the one before begins anew; of several at once one is enough.
                        let told = |mark: &Mark| mark.label == *name && (mark.x - at).abs() < self.span.step;
                        let begins = at - before > self.span.step * 1.5 && !marks.iter().any(told);
                        if begins && marks.len() < MOST {
                            marks.push(Mark::new(*at, name, Tone::Plain));
                        }
                        before = *at;
                    }
                }
            }
        }
        marks
    }
}

/// The variables for each copy of what is repeated for the values of one; one copy where nothing is.
fn copies(name: Option<&str>, variables: &Variables) -> Vec<Variables> {
    let values = name.and_then(|name| Some((name, &variables.get(name)?.values)));
    match values {
        Some((name, values)) if !values.is_empty() => values
            .iter()
            .take(COPIES)
            .map(|value| variables.with(name, value))
            .collect(),
        _ => vec![variables.clone()],
    }
}

impl<'a> Section<'a> {
    fn of(row: &'a board::Row, variables: &Variables, settings: &Settings, left: &mut usize) -> Self {
        let title = row.title.as_ref().map(|title| variables.tell(title));
        if row.folded && !settings.unfold {
            return Self {
                title: Some(title.unwrap_or_default()),
                aside: match row.panels.len() {
                    1 => "1 panel, folded".to_owned(),
                    count => format!("{count} panels, folded"),
                },
                panels: Vec::new(),
                rows: 0,
            };
        }
        let mut panels = Vec::new();
        for panel in &row.panels {
            let name = panel.repeat.as_ref().map(|repeat| repeat.variable.as_str());
            let mut each = copies(name, variables);
            each.truncate(*left);
            *left -= each.len();
            let grids = match &panel.repeat {
                Some(repeat) => layout::copies(panel.grid, each.len(), repeat.downwards, repeat.most_per_row),
                None => vec![panel.grid],
            };
            panels.extend(
                each.into_iter()
                    .zip(grids)
                    .map(|(variables, grid)| Placed { panel, variables, grid }),
            );
        }
        let grids: Vec<[u16; 4]> = panels.iter().map(|placed| placed.grid).collect();
        let (grids, rows) = layout::compact(&grids);
        for (placed, grid) in panels.iter_mut().zip(grids) {
            placed.grid = grid;
        }
        Self {
            title: title.filter(|title| !title.is_empty()),
            aside: String::new(),
            panels,
            rows,
        }
    }

    fn height(&self) -> f64 {
        let headline = if self.title.is_some() { HEADLINE } else { 0.0 };
        headline + layout::height(self.rows)
    }
}
