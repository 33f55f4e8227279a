//! `opsctl dashboard render`: the boards of the catalogue as files for a Grafana, or any board as a picture.

mod model;
mod picture;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dashboards::boards::TAG;
use serde::Serialize;

use crate::context::Context;
use crate::derived::{self, Derived};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;

/// Write the boards of the catalogue, or draw any board
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Boards by name, or files to draw; all of the catalogue without
    #[arg(value_name = "BOARD|FILE")]
    boards: Vec<String>,

    /// What is written
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "json",
        hide_possible_values = true
    )]
    format: Format,

    /// Into this folder, or one picture into this file
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Write nothing; exit 4 if what lies there differs
    #[arg(long, requires = "out", conflicts_with = "dry_run")]
    check: bool,

    /// Say what would be written, and write nothing
    #[arg(short = 'n', long, requires = "out")]
    dry_run: bool,

    #[command(flatten)]
    model: model::ModelArgs,

    #[command(flatten)]
    picture: picture::PictureArgs,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Grafana's classic model, a file for each board
    Json,
    /// The same in the envelope of Grafana's newer API
    V1,
    /// The model of Grafana 13
    V2,
    /// The tree that a Grafana reads at its start, data sources included
    Provisioning,
    /// ConfigMaps for the sidecar of a Grafana on Kubernetes
    Configmaps,
    /// A picture for each board
    Svg,
    /// The same as pixels
    Png,
    /// One page with all pictures
    Html,
}

impl Format {
    fn is_picture(self) -> bool {
        matches!(self, Self::Svg | Self::Png | Self::Html)
    }

    /// The ending of the files that it makes.
    fn ending(self) -> &'static str {
        match self {
            Self::Json | Self::V1 | Self::V2 | Self::Provisioning => "json",
            Self::Configmaps => "yaml",
            Self::Svg => "svg",
            Self::Png => "png",
            Self::Html => "html",
        }
    }
}

fn help() -> String {
    format!(
        "Formats: json (Grafana's classic model), v1, v2 (Grafana's newer API), provisioning, configmaps; svg, png, html.\n\n\
         Examples:\n  # What a Grafana reads at its start: boards and data sources\n  \
         opsctl dashboard render --format provisioning --out grafana\n\n  \
         # In continuous integration: is what is committed what the catalogue says?\n  \
         opsctl dashboard render --format provisioning --out grafana --check\n\n  \
         # For the sidecar of a Grafana on Kubernetes\n  \
         opsctl -e production dashboard render --format configmaps | kubectl apply -f -\n\n  \
         # A board as it looks now, without a Grafana\n  \
         opsctl dashboard render requests --format html --from -3h --out now.html\n\n  \
         # A board of your own, with figures that were recorded\n  \
         opsctl dashboard render board.json --format png --fixture board.data.json --out board.png\n\n\
         The same catalogue makes the same bytes. A picture is a preview and not Grafana: what it leaves away, it says. Exit 3: some\n\
         questions of a picture were not answered, and are listed.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::No,
            Exit::Refused,
            Exit::Unreachable,
            Exit::Inconclusive
        ])
    )
}

/// What was rendered, before it lies anywhere.
struct Rendered {
    /// By path below the folder.
    files: BTreeMap<String, Vec<u8>>,
    /// The folder below it in which boards of ours that are not among the files go.
    sweep: Option<String>,
    /// What is to be said of pictures.
    pictures: Vec<picture::Told>,
    exit: Exit,
}

#[derive(Serialize)]
struct Document<'a, F> {
    schema: &'static str,
    r#type: &'static str,
    format: Format,
    /// Where the files lie; none when they are in here.
    folder: Option<String>,
    written: bool,
    files: &'a [F],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pictures: &'a [picture::Told],
}

/// A file that is shown.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a str,
    content: &'a str,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let rendered = if args.format.is_picture() {
        picture::render(args, context)?
    } else {
        model::render(args, context)?
    };
    let exit = rendered.exit;
    match &args.out {
        None => show(args, context, &rendered).map(|()| exit),
        Some(out) => {
            let answer = write(args, context, rendered, &context.absolute(out))?;
            Ok(if answer == Exit::Done { exit } else { answer })
        }
    }
}

/// To stdout: everything in the document, or one file as it is.
fn show(args: &Args, context: &Context, rendered: &Rendered) -> Result<(), Failure> {
    if context.out.json {
        let files = rendered.files.iter().map(|(path, bytes)| shown(path, bytes));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        return context.out.document(&document(args, &files, &rendered.pictures));
    }
    let mut files = rendered.files.values();
    match (files.next(), files.next()) {
        (Some(_), None) if args.format == Format::Png && context.out.width.is_some() => {
            Err(Failure::usage("terminal", "a terminal cannot show a PNG").help("write it with `--out`"))
        }
        (Some(only), None) => context.out.raw(only),
        _ => Err(Failure::usage(
            "several_files",
            "several files do not go to stdout: name one, or say where they go",
        )
        .details(rendered.files.keys().cloned())
        .help(format!(
            "opsctl dashboard render --format {} --out grafana",
            args.format.word()
        ))),
    }
}

fn shown<'a>(path: &'a str, bytes: &'a [u8]) -> Result<Shown<'a>, Failure> {
    let content = std::str::from_utf8(bytes).map_err(|_| {
        Failure::usage("not_text", "a PNG is no text: it cannot stand in a document").help("write it with `--out`")
    })?;
    Ok(Shown { path, content })
}

fn document<'a, F>(args: &Args, files: &'a [F], pictures: &'a [picture::Told]) -> Document<'a, F> {
    Document {
        schema: "opsctl.dashboard_render/v1",
        r#type: "dashboard_render",
        format: args.format,
        folder: None,
        written: false,
        files,
        pictures,
    }
}

impl Format {
    fn word(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Into a folder: the plan first.
fn write(args: &Args, context: &Context, mut rendered: Rendered, out: &Path) -> Outcome {
    let (folder, files) = destination(args.format, std::mem::take(&mut rendered.files), out);
    let files = plan(context, &folder, files, rendered.sweep.as_deref())?;
    let dry = args.check || args.dry_run;
    if !dry {
        files.iter().try_for_each(|file| file.apply(context))?;
    }
    let document = Document {
        folder: Some(folder.display().to_string()),
        written: !dry,
        ..document(args, &files, &rendered.pictures)
    };
    context.out.answer(&document, |paint| derived::lines(&files, paint))?;
    let (differing, count) = (derived::differing(&files), files.len());
    if differing == 0 {
        context.out.note(format!("all {count} files are as they should be"));
        return Ok(Exit::Done);
    }
    if args.check {
        context.out.note(format!(
            "{differing} of {count} files differ from what the catalogue says"
        ));
        return Ok(Exit::No);
    }
    if dry {
        context.out.note(format!(
            "nothing was written: {differing} of {count} files would change"
        ));
    } else {
        context.out.done(format!("{differing} of {count} files changed"));
    }
    Ok(Exit::Done)
}

/// Where files go: one picture may be given the name of its file.
fn destination(format: Format, files: BTreeMap<String, Vec<u8>>, out: &Path) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let named = out.extension().is_some_and(|ending| ending == format.ending()) && files.len() == 1;
    match (out.parent(), out.file_name()) {
        (Some(folder), Some(name)) if named => {
            let name = name.to_string_lossy().into_owned();
            let files = files.into_values().map(|bytes| (name.clone(), bytes)).collect();
            (folder.to_owned(), files)
        }
        _ => (out.to_owned(), files),
    }
}

/// Compares the files with what lies in the folder. In `sweep`, a folder below it, boards of ours go that are not among
/// the files; what is nobody's board stays.
fn plan(
    context: &Context,
    folder: &Path,
    files: BTreeMap<String, Vec<u8>>,
    sweep: Option<&str>,
) -> Result<Vec<Derived>, Failure> {
    let mut planned = Vec::with_capacity(files.len());
    let swept = sweep.map(|sweep| boards_in(context, &folder.join(sweep))).transpose()?;
    for file in swept.unwrap_or_default() {
        if !files.keys().any(|path| folder.join(path) == file) {
            planned.push(Derived::unwanted(context, file));
        }
    }
    for (path, bytes) in files {
        let file = folder.join(path);
        let old = derived::held(context, &file)?;
        planned.push(Derived::wanted(context, file, old.as_deref(), bytes));
    }
    planned.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(planned)
}

/// The files in a folder that are called as our boards are.
fn boards_in(context: &Context, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let told = format!("could not read `{}`", context.shown(folder));
            return Err(Failure::io(told, &error));
        }
    };
    let beginning = format!("{TAG}-");
    let ours = |file: &PathBuf| {
        let begins = file
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&beginning));
        begins && file.extension().is_some_and(|end| end == "json")
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(ours).collect())
}
