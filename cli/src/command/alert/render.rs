//! `opsctl alert render`: rules, their tests, Alertmanager's routes and runbook pages, derived from the catalogue and
//! written below a folder. What each alert asks is the business of `alerts`.

use std::fs;
use std::path::{Path, PathBuf};

use alerts::render::{self, File, Rendered, Settings, WRITTEN, runbook_page};
use clap::ValueEnum;
use lint::SourceFile;
use serde::Serialize;

use super::files;
use crate::config::{self, Config};
use crate::context::Context;
use crate::derived::{self, Derived};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::landscape;
use crate::output::plural;

/// Where everything goes when nobody says so, beside opsctl.toml.
const FOLDER: &str = "deploy/alerts";
/// Where runbook pages go, beside opsctl.toml: where alerts link to without `runbooks`.
const PAGES: &str = "docs/runbooks";

/// Write the alert rules of every service, their tests, routes and runbook pages
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Write into this folder, `deploy/alerts` beside opsctl.toml by itself; `-` prints instead
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Who is to read the rules
    #[arg(long, value_name = "WHO", value_enum, default_value = "prometheus")]
    format: Format,

    /// Write runbook pages into this folder, `docs/runbooks` beside opsctl.toml by itself
    #[arg(long, value_name = "FOLDER")]
    runbooks: Option<PathBuf>,

    /// A file, as Alertmanager sees it, with the address of whoever misses the alert that always fires
    #[arg(long, value_name = "FILE")]
    watchdog_file: Option<String>,

    /// Write nothing; exit 4 when what is there is not what is derived
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,

    /// Say what would be written, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Rule files, and tests of them
    Prometheus,
    /// PrometheusRule objects of the operator
    Kubernetes,
}

fn help() -> String {
    format!(
        "Examples:\n  # Write them, and look at what changed\n  opsctl alert render\n  git diff deploy/alerts docs/runbooks\n\n  \
         # In continuous integration: are they up to date?\n  opsctl alert render --check\n\n  \
         # To the operator of a cluster\n  opsctl -e production alert render --format kubernetes --out - | kubectl apply -f -\n\n\
         The same opsctl.toml gives the same bytes. `rules/` holds a file a service and datastore, `rules/tests/` promtool's\n\
         tests of each alert, `alertmanager.yaml` the routes by team. Of runbook pages the steps between the two marks are\n\
         yours and stay. A file that opsctl did not write is never overwritten (5); those that it wrote and no longer derives\n\
         go. Exit 4 with --check: something differs.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::No, Exit::Refused])
    )
}

/// A file that is printed.
#[derive(Serialize)]
struct Printed {
    path: String,
    content: String,
}

#[derive(Serialize)]
struct Document<'a, F> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    format: Format,
    /// Whether nothing was written.
    dry_run: bool,
    files: &'a [F],
    /// What was left out, and why.
    notes: &'a [String],
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let rendered = of(&config, args.watchdog_file.clone())?;
    for note in rendered.notes.iter().filter(|_| !context.out.json) {
        context.out.warn(note);
    }
    if args.out.as_deref() == Some(Path::new("-")) {
        return print(args, context, &config, &rendered);
    }
    let root = |typed: &Option<PathBuf>, own: &str| match typed {
        Some(typed) => context.absolute(typed),
        None => config.root.join(own),
    };
    let folder = root(&args.out, FOLDER);
    let files = plan(context, args.format, &rendered, &folder, &root(&args.runbooks, PAGES))?;
    let write = !args.check && !args.dry_run;
    if write {
        files.iter().try_for_each(|file| file.apply(context))?;
    }
    let document = Document {
        schema: "opsctl.alert_render/v1",
        r#type: "alert_render",
        environment: &config.environment.name,
        format: args.format,
        dry_run: !write,
        files: &files,
        notes: &rendered.notes,
    };
    context.out.answer(&document, |paint| derived::lines(&files, paint))?;
    let (changed, all) = (derived::differing(&files) as u64, files.len() as u64);
    let told = format!(
        "{} of {}",
        plural(changed, "change", "changes"),
        plural(all, "file", "files")
    );
    if !write {
        context.out.note(told);
        return Ok(if args.check && changed > 0 {
            Exit::No
        } else {
            Exit::Done
        });
    }
    context.out.done(told);
    if changed > 0 && args.format == Format::Prometheus {
        context
            .out
            .next(format!("opsctl alert test {}", context.shown(&folder)));
    }
    Ok(Exit::Done)
}

/// What is derived from the catalogue.
fn of(config: &Config, watchdog_file: Option<String>) -> Result<Rendered, Failure> {
    let settings = Settings {
        watchdog_file,
        ..Settings::default()
    };
    Ok(render::render(&landscape::of(config), &settings)?)
}

/// The rules and routes as [`run`] writes them, unless somebody says where to: what should be loaded.
pub(super) fn expected(config: &Config) -> Result<Vec<SourceFile>, Failure> {
    let files = below(Format::Prometheus, &of(config, None)?);
    let rules = files.into_iter().filter(|file| !file.path.starts_with("rules/tests/"));
    Ok(rules
        .map(|file| SourceFile::new(format!("{FOLDER}/{}", file.path), file.text))
        .collect())
}

/// The files below the folder of the output.
fn below(format: Format, rendered: &Rendered) -> Vec<File> {
    let rules = match format {
        Format::Prometheus => rendered.prometheus(),
        Format::Kubernetes => rendered.kubernetes(),
    };
    let rules = rules.into_iter().map(|file| File {
        path: format!("rules/{}", file.path),
        text: file.text,
    });
    rules.chain([rendered.alertmanager()]).collect()
}

fn print(args: &Args, context: &Context, config: &Config, rendered: &Rendered) -> Outcome {
    let mut files = below(args.format, rendered);
    if args.format == Format::Kubernetes {
        // What goes to `kubectl` is objects alone.
        files.retain(|file| file.path.starts_with("rules/"));
    }
    let files: Vec<Printed> = files
        .into_iter()
        .map(|file| Printed {
            path: file.path,
            content: file.text,
        })
        .collect();
    let document = Document {
        schema: "opsctl.alert_render/v1",
        r#type: "alert_render",
        environment: &config.environment.name,
        format: args.format,
        dry_run: true,
        files: &files,
        notes: &rendered.notes,
    };
    context.out.answer(&document, |_| {
        let texts = files.iter().map(|file| format!("# {}\n{}", file.path, file.content));
        texts.collect::<Vec<_>>().join("---\n")
    })?;
    Ok(Exit::Done)
}

fn plan(
    context: &Context,
    format: Format,
    rendered: &Rendered,
    folder: &Path,
    pages: &Path,
) -> Result<Vec<Derived>, Failure> {
    let mut planned = Vec::new();
    for file in below(format, rendered) {
        let path = folder.join(&file.path);
        let old = old(context, &path)?;
        if old.as_ref().is_some_and(|old| !ours(old)) {
            let told = format!("`{}` was not written by opsctl", context.shown(&path));
            return Err(Failure::refused("not_ours", told).help("move it away, or write elsewhere with `--out FOLDER`"));
        }
        planned.push(Derived::wanted(
            context,
            path,
            old.as_deref().map(str::as_bytes),
            file.text,
        ));
    }
    for folder in [folder.join("rules"), folder.join("rules/tests")] {
        for path in left(context, &folder)? {
            if planned.iter().all(|file: &Derived| file.file != path) {
                planned.push(Derived::unwanted(context, path));
            }
        }
    }
    for page in rendered.pages() {
        let path = pages.join(format!("{}.md", page.alert));
        let old = old(context, &path)?;
        let text = runbook_page(page, &rendered.rules, old.as_deref()).map_err(|error| {
            let told = format!(
                "`{}` cannot be written anew without losing what people wrote",
                context.shown(&path)
            );
            let failure = Failure::refused("damaged_page", told).because(&error);
            failure.help("put the two marks back, one before and one behind the steps, or move the page away")
        })?;
        planned.push(Derived::wanted(context, path, old.as_deref().map(str::as_bytes), text));
    }
    Ok(planned)
}

/// What is there; `None` where nothing is.
fn old(context: &Context, path: &Path) -> Result<Option<String>, Failure> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => files::text(context, path).map(Some),
    }
}

/// Whether a file was derived.
fn ours(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.contains(WRITTEN))
}

/// Files of the folder that were derived once.
fn left(context: &Context, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut left = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let yaml = path.is_file() && path.extension().is_some_and(|end| end == "yaml");
        if yaml && ours(&files::text(context, &path)?) {
            left.push(path);
        }
    }
    left.sort();
    Ok(left)
}
