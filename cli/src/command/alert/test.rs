//! `opsctl alert test`: tests of rules, run by promtool, and of routes, run by a real Alertmanager. What a file is, its keys
//! say; how it is judged is the business of `alerts`.

use std::path::PathBuf;
use std::time::Duration;

use alerts::kind::Kind;
use alerts::programs::{Places, Program};
use alerts::routing;
use alerts::test::{self, Demand, Settings};
use clap::ValueEnum;
use serde_json::json;

use super::files::{self, Read};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::printable;

/// Test alert rules with promtool, and routes with a real Alertmanager
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Test files of promtool, suites of routes, or folders of them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// How results are told
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    format: Format,

    /// How many of the alerts, in per cent, passing tests must show to fire
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    coverage: Option<f64>,

    /// And how many to stay silent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    coverage_silent: Option<f64>,

    /// Take what promtool takes: unknown alerts, patterns without files, times between evaluations
    #[arg(long)]
    promtool_compat: bool,

    /// Evaluate all rules, as promtool does, and not those alone that a test needs
    #[arg(long)]
    whole: bool,

    /// A feature flag of Prometheus that the rules need
    #[arg(long, value_name = "FLAG", value_delimiter = ',')]
    feature: Vec<String>,

    /// The promtool to run, instead of the one on PATH
    #[arg(long, value_name = "FILE")]
    promtool: Option<PathBuf>,

    /// The alertmanager to run, instead of the one on PATH
    #[arg(long, value_name = "FILE")]
    alertmanager: Option<PathBuf>,

    /// How long one promtool may run
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    limit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// For build servers
    Junit,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| "expected a number from 0 to 100")?;
    if (0.0..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err("expected a number from 0 to 100".to_owned())
    }
}

fn help() -> String {
    format!(
        "Examples:\n  # What `alert render` wrote\n  opsctl alert test deploy/alerts\n\n  \
         # promtool's own files, unchanged; every alert must be seen to fire\n  opsctl alert test rules/tests/ --coverage 100\n\n  \
         # Where alerts are led, at which time, and what inhibits them\n  opsctl alert test routes.test.yaml --format junit > routes.xml\n\n\
         A file with the key `alertmanager` is a suite of routes. docs/guides/alert-tests.md says what may stand in both.\n\
         Exit 4: a test failed, or a file has a mistake; 2: a file cannot be read, or promtool or alertmanager is missing.\n\n{}",
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
    let read = files::read(context, &args.files, &[Kind::RuleTests, Kind::RouteTests, Kind::Broken])?;
    for file in &read {
        if matches!(file.kind, Kind::Rules | Kind::Routes) {
            let told = format!("`{}` holds no tests", file.source.name());
            return Err(Failure::usage("no_tests", told).help(format!("opsctl alert check {}", file.source.name())));
        }
    }
    let paths = |routes: bool| -> Vec<PathBuf> {
        let of_kind = |file: &&Read| (file.kind == Kind::RouteTests) == routes;
        read.iter()
            .filter(of_kind)
            .map(|file| file.source.name().into())
            .collect()
    };
    let (rules, routes) = (paths(false), paths(true));
    let places = Places::from_env();
    let progress = context.out.progress("alert test");
    let rules = if rules.is_empty() {
        None
    } else {
        let settings = settings(args, places.find(Program::Promtool, args.promtool.as_deref())?);
        progress.phase("asking promtool");
        Some(context.interruptible(test::run(&rules, &settings))??)
    };
    let routes = if routes.is_empty() {
        None
    } else {
        let program = places.find(Program::Alertmanager, args.alertmanager.as_deref())?;
        progress.phase("sending alerts to an Alertmanager");
        Some(context.interruptible(routing::run(&routes, &program))??)
    };
    drop(progress);
    let passed = rules.as_ref().is_none_or(test::Report::passed) && routes.as_ref().is_none_or(routing::Report::passed);
    let format = if context.out.json { Format::Json } else { args.format };
    match format {
        Format::Json => context.out.document(&json!({
            "schema": "opsctl.alert_test/v1",
            "type": "alert_test",
            "passed": passed,
            "rules": rules,
            "routes": routes,
        }))?,
        Format::Junit => {
            let all = [rules.map(|report| report.junit()), routes.map(|report| report.junit())];
            context
                .out
                .data(&together(&all.into_iter().flatten().collect::<Vec<_>>()))?;
        }
        Format::Text => {
            let all = [rules.map(|report| report.text()), routes.map(|report| report.text())];
            context
                .out
                .data(&printable(&all.into_iter().flatten().collect::<String>()))?;
        }
    }
    Ok(if passed { Exit::Done } else { Exit::No })
}

fn settings(args: &Args, promtool: PathBuf) -> Settings {
    Settings {
        compatible: args.promtool_compat,
        features: args.feature.clone(),
        whole: args.whole,
        limit: args.limit,
        coverage: Demand {
            min: args.coverage.unwrap_or_default(),
            min_silent: args.coverage_silent.unwrap_or_default(),
        },
        ..Settings::new(promtool)
    }
}

/// One document of several: their suites, one after another.
fn together(documents: &[String]) -> String {
    if let [only] = documents {
        return only.clone();
    }
    let frame = |line: &&str| {
        ["<?xml", "<testsuites", "</testsuites"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let suites = documents.iter().flat_map(|document| document.lines());
    let suites: Vec<&str> = suites.filter(|line| !frame(line)).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n{}\n</testsuites>\n",
        suites.join("\n")
    )
}
