//! Boards as pictures, from the Prometheus of the environment or from a recording.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use dashboards::draw::data::{Data, Fixture};
use dashboards::draw::{self, Board, Drawing, Settings};
use dashboards::model::envelope::{self, Format as Form};
use pictures::{PngError, Svg, Theme};
use serde::Serialize;

use super::{Format, Rendered};
use crate::command::dashboard::{ours, read};
use crate::config::{self, Config};
use crate::context::Context;
use crate::derived;
use crate::error::{self, Failure};
use crate::exit::Exit;
use crate::moment::{self, Moment};
use crate::output::{Amount, plural};
use crate::{landscape, platform};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pictures")]
pub(super) struct PictureArgs {
    /// From when: -1h, now-7d, a time [default: the board's]
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    from: Option<Moment>,

    /// Until when [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    to: Option<Moment>,

    /// The value of a variable; may be given several times
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,

    /// Colours: light or dark; a page follows who looks at it
    #[arg(long, value_name = "THEME", value_enum, hide_possible_values = true)]
    theme: Option<Colours>,

    /// Draw what was recorded in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "from", "to"])]
    fixture: Option<PathBuf>,

    /// Keep the answers in this file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Pixels from side to side [default: 1280]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(320..=4000))]
    width: Option<u16>,

    /// Draw folded rows too
    #[arg(long)]
    unfold: bool,
}

impl PictureArgs {
    /// Whether anything was said.
    pub(super) fn any(&self) -> bool {
        let times = self.from.is_some() || self.to.is_some();
        let files = self.fixture.is_some() || self.record.is_some();
        let looks = self.theme.is_some() || self.width.is_some() || self.unfold;
        times || files || looks || !self.variables.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colours {
    Light,
    Dark,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let named = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    named
        .then(|| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{name}` is no name of a variable"))
}

/// What is said of a picture.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    board: String,
    panels: usize,
    questions: usize,
    unanswered: Vec<Unanswered>,
}

#[derive(Debug, Serialize)]
struct Unanswered {
    why: String,
    questions: usize,
}

/// A board and the name of its picture.
struct Shown {
    name: String,
    board: Board,
}

/// A question that takes longer is not answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is shown of a board that does not say it.
const HOUR: f64 = 3600.0;

/// Draws the boards that are meant.
pub(super) fn render(args: &super::Args, context: &Context) -> Result<Rendered, Failure> {
    let wants = &args.picture;
    let is_file =
        |name: &String| name.contains('/') || Path::new(name).extension().is_some_and(|ending| ending == "json");
    let of_catalogue = args.boards.is_empty() || !args.boards.iter().all(is_file);
    // A board in a file with a recording needs no catalogue.
    let config = if of_catalogue || wants.fixture.is_none() {
        Some(config::load(context)?)
    } else {
        None
    };
    let mut boards = Vec::new();
    if args.boards.is_empty() {
        boards = drawable(config.as_ref(), &[])?;
    }
    for name in &args.boards {
        if is_file(name) {
            boards.push(of_file(context, Path::new(name))?);
        } else {
            boards.append(&mut drawable(config.as_ref(), std::slice::from_ref(name))?);
        }
    }
    let fixture = wants
        .fixture
        .as_deref()
        .map(|file| recording(context, file))
        .transpose()?;
    let mut settings = settings(args, context, config.as_ref());
    let drawings = match (fixture, &config) {
        (Some(fixture), _) => {
            (settings.from, settings.to) = fixture.span();
            context.interruptible(all(context, args, &boards, &fixture, &settings, Some(settings.from)))?
        }
        (None, Some(config)) => context.interruptible(live(context, args, &boards, config, &settings))??,
        (None, None) => return Err(Failure::bug("there is neither a catalogue nor a recording")),
    };
    let told: Vec<Told> = drawings.iter().map(told).collect();
    let exit = verdict(context, &told)?;
    Ok(Rendered {
        files: files(args.format, &boards, &drawings)?,
        sweep: None,
        pictures: told,
        exit,
    })
}

fn drawable(config: Option<&Config>, names: &[String]) -> Result<Vec<Shown>, Failure> {
    let Some(config) = config else {
        return Err(Failure::bug("there is no catalogue"));
    };
    let boards = ours(&landscape::of(config), names)?;
    let shown = |board: &dashboards::model::Dashboard| {
        let text = envelope::write(board, Form::Classic);
        Ok(Shown {
            board: Board::parse(&text).map_err(|error| error::dashboards::board(&board.uid, &error))?,
            name: board.uid.clone(),
        })
    };
    boards.iter().map(shown).collect()
}

fn of_file(context: &Context, file: &Path) -> Result<Shown, Failure> {
    let shown = context.shown(file);
    let text = read(context, file)?;
    Ok(Shown {
        board: Board::parse(&text).map_err(|error| error::dashboards::board(&shown, &error))?,
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    })
}

fn recording(context: &Context, file: &Path) -> Result<Fixture, Failure> {
    let text = read(context, file)?;
    Fixture::read(&text).map_err(|error| error::dashboards::fixture(&context.shown(file), &error))
}

/// All but the begin, which a board may choose.
fn settings(args: &super::Args, context: &Context, config: Option<&Config>) -> Settings {
    let wants = &args.picture;
    let to = wants.to.map_or(context.now(), |to| to.time(context.now())).as_second() as f64;
    let mut variables = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &wants.variables {
        variables.entry(name.clone()).or_default().push(value.clone());
    }
    let mut settings = Settings::new(to - HOUR, to);
    settings.variables = variables;
    settings.theme = match (args.format, wants.theme) {
        (Format::Html, _) => Theme::Page,
        (_, Some(Colours::Dark)) => Theme::Dark,
        _ => Theme::Light,
    };
    settings.unfold = wants.unfold;
    settings.width = wants.width.map_or(settings.width, f64::from);
    if let Some(config) = config {
        settings.scrape = landscape::of(config).scrape_interval.as_secs_f64().max(1.0);
    }
    settings
}

/// From the Prometheus of the environment; with `--record`, from what it has answered.
async fn live(
    context: &Context,
    args: &super::Args,
    boards: &[Shown],
    config: &Config,
    settings: &Settings,
) -> Result<Vec<Drawing>, Failure> {
    let wants = &args.picture;
    let known = platform::prometheus_of(context, config)?;
    let data = platform::figures(context, known, PATIENCE)?;
    let from = wants.from.map(|from| from.time(context.now()).as_second() as f64);
    if from.is_some_and(|from| from >= settings.to) {
        return Err(Failure::usage("usage", "`--from` has to be before `--to`"));
    }
    // One that nobody answers would be drawn as a board without data.
    data.instant("vector(1)", settings.to).await.map_err(|error| {
        error::dashboards::data(format!("the Prometheus at {} gives no figures", known.url), &error)
    })?;
    let Some(file) = &wants.record else {
        return Ok(all(context, args, boards, &data, settings, from).await);
    };
    // A recording is of one stretch: the longest that a board asks for.
    let longest = boards
        .iter()
        .map(|shown| shown.board.back().unwrap_or(HOUR))
        .fold(0.0, f64::max);
    let settings = Settings {
        from: from.unwrap_or(settings.to - longest),
        ..settings.clone()
    };
    let line = context.out.progress("recording");
    let each: Vec<Board> = boards.iter().map(|shown| shown.board.clone()).collect();
    let fixture = draw::record(&each, &data, &settings, &|progress| line.amount(amount(progress))).await;
    drop(line);
    let path = context.absolute(file);
    derived::replace(context, &path, fixture.write().as_bytes())?;
    context.out.done(format!("recorded in {}", context.shown(&path)));
    Ok(all(context, args, boards, &fixture, &settings, Some(settings.from)).await)
}

/// Each board, from one begin or from its own.
async fn all(
    context: &Context,
    args: &super::Args,
    boards: &[Shown],
    data: &dyn Data,
    settings: &Settings,
    from: Option<f64>,
) -> Vec<Drawing> {
    let line = context.out.progress("drawing");
    let mut drawings = Vec::with_capacity(boards.len());
    for (number, shown) in boards.iter().enumerate() {
        line.phase(&shown.name);
        let mut settings = settings.clone();
        settings.from = from.unwrap_or_else(|| settings.to - shown.board.back().unwrap_or(HOUR));
        if args.format == Format::Html {
            settings.id = format!("board-{}", number + 1);
        }
        let tell = |progress| line.amount(amount(progress));
        drawings.push(draw::draw(&shown.board, data, &settings, &tell).await);
    }
    drawings
}

fn amount(progress: draw::Progress) -> Amount {
    Amount {
        done: progress.answered as u64,
        total: Some(progress.questions as u64),
        ..Amount::default()
    }
}

fn told(drawing: &Drawing) -> Told {
    let one = |(why, questions): &(String, usize)| Unanswered {
        why: why.clone(),
        questions: *questions,
    };
    Told {
        board: drawing.title.clone(),
        panels: drawing.panels,
        questions: drawing.questions,
        unanswered: drawing.failures.iter().map(one).collect(),
    }
}

/// A picture of nothing is none; one with gaps says so.
fn verdict(context: &Context, told: &[Told]) -> Result<Exit, Failure> {
    let asked: usize = told.iter().map(|one| one.questions).sum();
    let unanswered = told.iter().flat_map(|one| &one.unanswered);
    let missing: usize = unanswered.clone().map(|one| one.questions).sum();
    if missing == 0 {
        return Ok(Exit::Done);
    }
    if missing >= asked {
        let whys = unanswered.map(|one| one.why.clone());
        return Err(Failure::new(
            Exit::Inconclusive,
            "no_data",
            "nothing was drawn: no question was answered",
        )
        .details(whys));
    }
    for one in told {
        for Unanswered { why, questions } in &one.unanswered {
            let count = plural(*questions as u64, "question", "questions");
            context
                .out
                .warn(format!("{}: {count} without an answer: {why}", one.board));
        }
    }
    Ok(Exit::Partial)
}

fn files(format: Format, boards: &[Shown], drawings: &[Drawing]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    if format == Format::Html {
        let title = match drawings {
            [only] => only.title.as_str(),
            _ => "Boards",
        };
        let page = draw::page(title, drawings, "A preview by opsctl, not by Grafana.");
        return Ok(BTreeMap::from([("dashboards.html".to_owned(), page.into_bytes())]));
    }
    let file = |(shown, drawing): (&Shown, &Drawing)| {
        let bytes = if format == Format::Png {
            pixels(&drawing.svg).map_err(|error| error::dashboards::png(&drawing.title, &error))?
        } else {
            drawing.svg.as_str().as_bytes().to_vec()
        };
        Ok((format!("{}.{}", shown.name, format.ending()), bytes))
    };
    boards.iter().zip(drawings).map(file).collect()
}

/// Sharp, or as sharp as its size allows.
fn pixels(svg: &Svg) -> Result<Vec<u8>, PngError> {
    match pictures::png(svg, 2.0) {
        Err(PngError::Size { .. }) => pictures::png(svg, 1.0),
        made => made,
    }
}
