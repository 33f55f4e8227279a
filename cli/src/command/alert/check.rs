//! `opsctl alert check`: what is wrong with rules and routes, in files before they run, or with `--live` in the servers that
//! run them. What is looked for is the business of `alerts` and `lint`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use alerts::check::{Options, check};
use alerts::kind::Kind;
use alerts::live::{self, Expected, Outcome as Seen, Verdict, World};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use lint::{Report, Severity, SourceFile, output};
use manifest::{Manifest, capture, exporters};
use serde_json::{Value, json};

use super::files::{self, Read};
use super::render;
use crate::config::{self, suggestion};
use crate::context::Context;
use crate::derived;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Paint, Style, plural, printable};
use crate::platform;

/// Find what is wrong with alert rules and routes, in files or in what runs
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Files of rules or routes, PrometheusRule objects, or folders of them
    #[arg(value_name = "FILE", required_unless_present = "live")]
    files: Vec<PathBuf>,

    /// Write the safe fixes into the files
    #[arg(long, conflicts_with = "live")]
    fix: bool,

    /// With --fix: say which files would change, and change nothing
    #[arg(short = 'n', long, requires = "fix")]
    dry_run: bool,

    /// How findings are told
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    format: Format,

    /// From which severity on the answer is no
    #[arg(long, value_name = "SEVERITY", value_enum, default_value = "error")]
    fail_on: Gravity,

    /// What a service exports: a file with the answer of its /metrics
    #[arg(long, value_name = "FILE")]
    metrics: Vec<PathBuf>,

    /// Exporters whose metrics are known, all by themselves; `none`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    exporters: Vec<String>,

    /// Ask the environment's Prometheus and Alertmanager whether these rules, or those of
    /// opsctl.toml, are loaded, work and are told
    #[arg(long, conflicts_with_all = ["metrics", "exporters"])]
    live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// For build servers
    Junit,
    /// For code review
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Gravity {
    Error,
    Warning,
    Note,
}

impl Gravity {
    fn severity(self) -> Severity {
        match self {
            Self::Error => Severity::Error,
            Self::Warning => Severity::Warning,
            Self::Note => Severity::Note,
        }
    }
}

fn help() -> String {
    format!(
        "Examples:\n  # Rules and routes before they are loaded\n  opsctl alert check rules/ alertmanager.yaml\n\n  \
         # Against what a service says that it exports, for code review\n  \
         curl -s localhost:18080/metrics > shop.txt\n  opsctl alert check rules/ --metrics shop.txt --format sarif > findings.sarif\n\n  \
         # Is what `alert render` writes what runs, and would anybody hear of it?\n  opsctl -e production alert check --live\n\n\
         Metrics are those of the catalogue of this project and of the exporters of nodes, PostgreSQL, kubelet and Traefik; of\n\
         others nothing is said that needs them. A comment suppresses a finding:\n\n  \
         # opsctl ignore(no-for) until 2026-12-31: pages at once on purpose\n\n\
         docs/reference/alert-checks.md has every check. Exit 4: a finding of level error (or --fail-on) stays; a file that is\n\
         no YAML is one. 2: a file cannot be read. With --live 7: a server does not answer; 9: something cannot be known yet.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::No,
            Exit::Unreachable,
            Exit::Inconclusive
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    if args.live {
        return live(args, context);
    }
    let progress = context.out.progress("alert check");
    let mut read = files::read(context, &args.files, &[Kind::Rules, Kind::Routes, Kind::Broken])?;
    of_a_kind(&read)?;
    let options = options(args, context)?;
    let mut report = check(sources(&read), &options);
    let mut fixed = Vec::new();
    if args.fix {
        (report, fixed) = fix(args, context, &mut read, &options, report)?;
    }
    drop(progress);
    let more = if args.fix {
        json!({ "dry_run": args.dry_run, "fixed": fixed })
    } else {
        json!({})
    };
    tell(args, context, &report, more)?;
    for one in &fixed {
        let what = plural(one.fixes as u64, "fix", "fixes");
        let would = if args.dry_run { "would write" } else { "wrote" };
        context.out.done(format!("{would} {what} into {}", one.file));
    }
    let safe = report
        .open()
        .any(|finding| finding.fix.as_ref().is_some_and(|fix| fix.safe));
    if safe && !args.fix {
        context.out.note("`--fix` writes the safe fixes into the files");
    }
    Ok(exit(args, &report))
}

/// Tests are no rules: what is typed by mistake is said so.
fn of_a_kind(read: &[Read]) -> Result<(), Failure> {
    for file in read {
        let (what, help) = match file.kind {
            Kind::RuleTests => ("tests of rules", format!("opsctl alert test {}", file.source.name())),
            Kind::RouteTests => ("tests of routes", format!("opsctl alert test {}", file.source.name())),
            Kind::Rules | Kind::Routes | Kind::Other | Kind::Broken => continue,
        };
        let told = format!("`{}` holds {what}, no rules", file.source.name());
        return Err(Failure::usage("no_rules", told).help(help));
    }
    Ok(())
}

fn sources(read: &[Read]) -> Vec<SourceFile> {
    read.iter().map(|file| file.source.clone()).collect()
}

/// What is known of metrics and of how often they are looked at.
fn options(args: &Args, context: &Context) -> Result<Options, Failure> {
    let mut manifest = known(&args.exporters)?;
    for typed in &args.metrics {
        let path = context.absolute(typed);
        let (name, text) = (context.shown(&path), files::text(context, &path)?);
        let captured = capture::read(&text, &name, capture::LIMITS).map_err(|error| {
            Failure::usage("unreadable", format!("`{name}` is no answer of /metrics")).because(&error)
        })?;
        manifest.merge(captured);
    }
    let mut options = Options::new(manifest, context.now().to_zoned(TimeZone::UTC).date());
    if let Some(config) = config::load_if_present(context)? {
        let watching = &config.environment.watching;
        options.scrape_interval = Some(watching.scrape_interval);
        options.evaluation_interval = Some(watching.evaluation_interval);
    }
    Ok(options)
}

/// The metrics of the catalogue and of the exporters that were named.
fn known(named: &[String]) -> Result<Manifest, Failure> {
    const NONE: &str = "none";
    if named.is_empty() {
        return Ok(Manifest::built_in());
    }
    let mut manifest = Manifest::catalogue();
    for name in named.iter().filter(|name| *name != NONE) {
        let mut all = exporters::ALL.iter();
        let Some(exporter) = all.find(|exporter| exporter.name == name.as_str()) else {
            let words = exporters::ALL.iter().map(|exporter| exporter.name).chain([NONE]);
            let failure = Failure::usage("unknown_exporter", format!("there is no exporter `{name}`"));
            return Err(match suggestion(name, words.clone()) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure.cause(format!("known are {}", words.collect::<Vec<_>>().join(", "))),
            });
        };
        manifest.merge(exporter.manifest());
    }
    Ok(manifest)
}

/// A file that was mended.
#[derive(Debug, serde::Serialize)]
struct Fixed {
    file: String,
    fixes: usize,
}

/// Applies safe fixes until there is none left, or they only make room for each other.
fn fix(
    args: &Args,
    context: &Context,
    read: &mut [Read],
    options: &Options,
    mut report: Report,
) -> Result<(Report, Vec<Fixed>), Failure> {
    const ROUNDS: usize = 8;
    let mut fixed: Vec<Fixed> = Vec::new();
    for _ in 0..ROUNDS {
        let texts: Vec<(String, String, usize)> = report
            .fixed()
            .into_iter()
            .map(|(file, text, count)| (file.name().to_owned(), text, count))
            .collect();
        if texts.is_empty() {
            break;
        }
        for (name, text, count) in texts {
            let mut files = read.iter_mut();
            let Some(file) = files.find(|file| file.source.name() == name) else {
                continue;
            };
            file.source = SourceFile::new(name.clone(), text);
            match fixed.iter_mut().find(|one| one.file == name) {
                Some(one) => one.fixes += count,
                None => fixed.push(Fixed {
                    file: name,
                    fixes: count,
                }),
            }
        }
        report = check(sources(read), options);
    }
    let changed: BTreeSet<&str> = fixed.iter().map(|one| one.file.as_str()).collect();
    if !args.dry_run {
        for file in read.iter().filter(|file| changed.contains(file.source.name())) {
            derived::replace(context, &file.path, file.source.text().as_bytes())?;
        }
    }
    Ok((report, fixed))
}

fn exit(args: &Args, report: &Report) -> Exit {
    if report.worst().is_some_and(|worst| worst >= args.fail_on.severity()) {
        Exit::No
    } else {
        Exit::Done
    }
}

fn tell(args: &Args, context: &Context, report: &Report, more: Value) -> Result<(), Failure> {
    if context.out.json || args.format == Format::Json {
        let mut document = output::json(report);
        document["type"] = "alert_check".into();
        if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
            document.extend(more);
        }
        return context.out.document(&document);
    }
    match args.format {
        Format::Junit => context.out.data(&output::junit(report)),
        Format::Sarif => context.out.document(&output::sarif(report, env!("CARGO_PKG_VERSION"))),
        Format::Text | Format::Json => context.out.data(&text(report, context.out.stdout)),
    }
}

/// The findings with the severity of each in its colour. Files are foreign: nothing in them steers a terminal.
fn text(report: &Report, paint: Paint) -> String {
    let plain = printable(&output::text(report));
    let line = |line: &str| {
        let styles = [
            ("error[", Style::Error),
            ("warning[", Style::Warning),
            ("note[", Style::Hint),
        ];
        let style = styles.iter().find(|(word, _)| line.starts_with(word));
        match style.and_then(|(_, style)| Some((style, line.split_once("]: ")?))) {
            Some((style, (head, rest))) => format!("{}: {rest}\n", paint.apply(*style, &format!("{head}]"))),
            None => format!("{line}\n"),
        }
    };
    plain.lines().map(line).collect()
}

/// What runs against what should.
fn live(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let files = if args.files.is_empty() {
        render::expected(&config)?
    } else {
        let read = files::read(context, &args.files, &[Kind::Rules, Kind::Routes, Kind::Broken])?;
        of_a_kind(&read)?;
        sources(&read)
    };
    let (expected, wrong) = Expected::read(files);
    if !wrong.is_empty() {
        let files = expected.rules.into_iter().map(|(file, _)| file).collect();
        let report = Report { files, findings: wrong };
        tell(args, context, &report, json!({}))?;
        return Ok(Exit::No);
    }
    let progress = context.out.progress("alert check --live");
    let world = context.interruptible(async {
        let watchers = platform::watchers(context, &config).await?;
        let (prometheus, alertmanager) = (&watchers.prometheus, watchers.alertmanager.as_ref());
        Ok::<_, Failure>(World::look(prometheus, alertmanager, &expected, context.now()).await)
    })??;
    drop(progress);
    let Seen { verdict, report } = live::check(&world, &expected);
    let more = json!({
        "environment": config.environment.name,
        "prometheus": world.prometheus,
        "alertmanager": world.alertmanager,
        "verdict": verdict,
    });
    tell(args, context, &report, more)?;
    Ok(match verdict {
        Verdict::Good => exit(args, &report),
        Verdict::Bad => Exit::No,
        Verdict::Unreachable => Exit::Unreachable,
        Verdict::Inconclusive => Exit::Inconclusive,
    })
}
