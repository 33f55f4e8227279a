//! `opsctl dashboard check`: what is wrong with boards, ours or anybody's, with the place and how to mend it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dashboards::check::{self as linter, table};
use dashboards::model::envelope::{self, Format as Form};
use lint::flow::Records;
use lint::{Report, Severity, output};
use manifest::{Manifest, capture};

use super::{ours, read};
use crate::context::Context;
use crate::derived;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{one_line, plural, printable};
use crate::{config, landscape};

/// Find what is wrong with boards
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Boards, or folders of them; without any, those of the catalogue
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Mend what can be mended without anybody looking
    #[arg(long, requires = "files")]
    fix: bool,

    /// Say which files --fix would change, and change none
    #[arg(short = 'n', long, requires = "fix")]
    dry_run: bool,

    /// How findings are written: text, json, junit, sarif
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    format: Option<Format>,

    /// A capture of /metrics: what else is exported; may be given several times
    #[arg(long, value_name = "CAPTURE")]
    metrics: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One document
    Json,
    /// For systems that show tests
    Junit,
    /// For systems that show findings beside the code
    Sarif,
}

fn help() -> String {
    format!(
        "Examples:\n  # A folder of boards, with what your own services export\n  \
         curl -s http://localhost:8080/metrics > orders.prom\n  \
         opsctl dashboard check grafana/boards --metrics orders.prom\n\n  \
         # Mend what is safe, and see what is left\n  \
         opsctl dashboard check board.json --fix\n\n  \
         # Beside the code, in a pull request\n  \
         opsctl dashboard check grafana/boards --format sarif > boards.sarif\n\n\
         What there is to ask for is known of our own libraries, of the exporters of nodes, PostgreSQL and Kubernetes, of Traefik\n\
         and Prometheus. Boards of every schema version are read. Exit 4: something does not do what it is there for; warnings\n\
         and notes alone end with 0. Exit 2: a file is no board.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::No])
    )
}

/// A file that is looked at.
struct Source {
    path: Option<PathBuf>,
    name: String,
    text: String,
}

/// What the linter is told besides the boards.
struct Known {
    manifest: Manifest,
    records: Records,
    scrape_interval: Option<std::time::Duration>,
}

impl Known {
    fn check(&self, sources: &[Source]) -> Report {
        let files = sources.iter().map(|source| (source.name.clone(), source.text.clone()));
        let context = linter::Context {
            manifest: &self.manifest,
            records: &self.records,
            scrape_interval: self.scrape_interval,
        };
        linter::check(files, context)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let format = match (args.format, context.out.json) {
        (None, false) => Format::Text,
        (None | Some(Format::Json), _) => Format::Json,
        (Some(format), false) => format,
        (Some(_), true) => {
            return Err(Failure::usage(
                "usage",
                "`--json` and another `--format` exclude each other",
            ));
        }
    };
    let mut known = Known {
        manifest: manifest(args, context)?,
        records: Records::default(),
        scrape_interval: None,
    };
    let mut sources = if args.files.is_empty() {
        let config = config::load(context)?;
        let landscape = landscape::of(&config);
        known.scrape_interval = Some(landscape.scrape_interval);
        let source = |board: &dashboards::model::Dashboard| Source {
            path: None,
            name: format!("{}.json", board.uid),
            text: envelope::write(board, Form::Classic),
        };
        ours(&landscape, &[])?.iter().map(source).collect()
    } else {
        files(args, context)?
    };
    let line = context.out.progress("checking boards");
    let mut report = known.check(&sources);
    if args.fix {
        line.phase("mending");
        let mended = mend(context, &known, &mut sources, &mut report, args.dry_run)?;
        drop(line);
        for (name, count) in mended {
            let places = plural(count as u64, "place", "places");
            let name = one_line(&name);
            if args.dry_run {
                context.out.note(format!("{places} of {name} would be mended"));
            } else {
                context.out.done(format!("mended {places} of {name}"));
            }
        }
    } else {
        drop(line);
    }
    write(format, &report, context)?;
    Ok(verdict(&report))
}

/// Applies safe fixes until there are none; one that wants the bytes of another comes with the next round. Also how many
/// places of which file.
fn mend(
    context: &Context,
    known: &Known,
    sources: &mut [Source],
    report: &mut Report,
    dry_run: bool,
) -> Result<Vec<(String, usize)>, Failure> {
    const ROUNDS: usize = 10;
    let mut counts = vec![0; sources.len()];
    let mut texts: Vec<String> = sources.iter().map(|source| source.text.clone()).collect();
    for _ in 0..ROUNDS {
        let fixed: Vec<(String, String, usize)> = report
            .fixed()
            .into_iter()
            .map(|(file, text, count)| (file.name().to_owned(), text, count))
            .collect();
        if fixed.is_empty() {
            break;
        }
        for (name, text, count) in fixed {
            for (index, source) in sources.iter_mut().enumerate().filter(|(_, source)| source.name == name) {
                counts[index] += count;
                source.text.clone_from(&text);
            }
        }
        *report = known.check(sources);
    }
    let mut mended = Vec::new();
    for (index, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let source = &mut sources[index];
        mended.push((source.name.clone(), count));
        match &source.path {
            Some(path) if !dry_run => derived::replace(context, path, source.text.as_bytes())?,
            _ => source.text = std::mem::take(&mut texts[index]),
        }
    }
    if dry_run {
        *report = known.check(sources);
    }
    Ok(mended)
}

/// What is known of metrics: built in, and the captures.
fn manifest(args: &Args, context: &Context) -> Result<Manifest, Failure> {
    let mut manifest = Manifest::built_in();
    for file in &args.metrics {
        let name = context.shown(file);
        let text = read(context, file)?;
        let capture = capture::read(&text, &name, capture::LIMITS);
        manifest.merge(capture.map_err(|error| error::dashboards::capture(&name, &error))?);
    }
    Ok(manifest)
}

/// The files that are meant, folders opened.
fn files(args: &Args, context: &Context) -> Result<Vec<Source>, Failure> {
    let mut paths = Vec::new();
    for file in &args.files {
        let path = context.absolute(file);
        if path.is_dir() {
            let before = paths.len();
            boards_below(&path, 0, &mut paths)
                .map_err(|error| Failure::io(format!("could not read `{}`", context.shown(&path)), &error))?;
            if paths.len() == before {
                let told = format!("there is no board in `{}`", context.shown(&path));
                return Err(Failure::usage("no_boards", told).help("boards are files that end in `.json`"));
            }
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    paths.dedup();
    let source = |path: PathBuf| {
        Ok(Source {
            name: context.shown(&path),
            text: read(context, &path)?,
            path: Some(path),
        })
    };
    paths.into_iter().map(source).collect()
}

/// All `.json` below a folder, but for hidden ones; links are not followed.
fn boards_below(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    const DEEPEST: usize = 16;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth < DEEPEST {
            boards_below(&path, depth + 1, paths)?;
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    Ok(())
}

fn write(format: Format, report: &Report, context: &Context) -> Result<(), Failure> {
    match format {
        Format::Text => context.out.data(&printable(&output::text(report))),
        Format::Json => context.out.document(&output::json(report)),
        Format::Junit => context.out.data(&output::junit(report)),
        Format::Sarif => context.out.document(&output::sarif(report, env!("CARGO_PKG_VERSION"))),
    }
}

fn verdict(report: &Report) -> Exit {
    let unreadable = [table::NOT_JSON.name, table::NOT_A_BOARD.name];
    if report.open().any(|finding| unreadable.contains(&finding.check.name)) {
        return Exit::Usage;
    }
    match report.worst() {
        Some(Severity::Error) => Exit::No,
        _ => Exit::Done,
    }
}
