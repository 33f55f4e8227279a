//! Boards as what a Grafana takes: JSON in its three forms, the tree of its provisioning, ConfigMaps.

use std::collections::BTreeMap;

use dashboards::model::Dashboard;
use dashboards::model::envelope::{self, Format as Form};
use dashboards::provision::{self, Sources, TraceStore, Traces};

use super::{Format, Rendered};
use crate::command::dashboard::ours;
use crate::config::{self, Config};
use crate::context::Context;
use crate::error::{Failure, dashboards::unwritable};
use crate::exit::Exit;
use crate::{landscape, platform};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "For Grafana")]
pub(super) struct ModelArgs {
    /// Folder of the boards in Grafana
    #[arg(long, value_name = "NAME", default_value = "opsctl", value_parser = folder)]
    folder: String,

    /// Namespace of the ConfigMaps [default: the environment's]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    namespace: Option<String>,

    /// Traces are in Tempo, not in Jaeger
    #[arg(long, hide_short_help = true)]
    tempo: bool,
}

/// A name that is one part of a path.
fn folder(text: &str) -> Result<String, String> {
    let is_one = !text.trim().is_empty() && !text.starts_with('.') && !text.contains(['/', '\\']);
    let readable = !text.chars().any(char::is_control);
    (is_one && readable)
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a name without slashes that does not begin with a dot".to_owned())
}

/// The files of a format.
pub(super) fn render(args: &super::Args, context: &Context) -> Result<Rendered, Failure> {
    if args.picture.any() {
        return Err(Failure::usage(
            "usage",
            "times, variables, recordings and colours belong to pictures: `--format svg`, `png` or `html`",
        ));
    }
    let config = config::load(context)?;
    let landscape = landscape::of(&config);
    let boards = ours(&landscape, &args.boards)?;
    let folder = &args.model.folder;
    let (files, below) = match args.format {
        Format::Provisioning => {
            let sources = sources(args, context, &config, landscape.scrape_interval.as_secs())?;
            let files = provision::tree(&boards, folder, &sources).map_err(|error| unwritable(&error))?;
            (files, format!("dashboards/{folder}"))
        }
        Format::Configmaps => {
            let file = (
                "dashboards.yaml".to_owned(),
                config_maps(args, context, &config, &boards)?,
            );
            (BTreeMap::from([file]), String::new())
        }
        Format::V1 => (each(&boards, Form::V1), String::new()),
        Format::V2 => (each(&boards, Form::V2), String::new()),
        Format::Json | Format::Svg | Format::Png | Format::Html => (each(&boards, Form::Classic), String::new()),
    };
    // Some boards say nothing about the others.
    let whole = args.boards.is_empty() && args.format != Format::Configmaps;
    Ok(Rendered {
        files: files
            .into_iter()
            .map(|(path, text)| (path, text.into_bytes()))
            .collect(),
        sweep: whole.then_some(below),
        pictures: Vec::new(),
        exit: Exit::Done,
    })
}

fn each(boards: &[Dashboard], form: Form) -> BTreeMap<String, String> {
    let file = |board: &Dashboard| (format!("{}.json", board.uid), envelope::write(board, form));
    boards.iter().map(file).collect()
}

fn config_maps(
    args: &super::Args,
    context: &Context,
    config: &Config,
    boards: &[Dashboard],
) -> Result<String, Failure> {
    let landscape = landscape::of(config);
    let sources = sources(args, context, config, landscape.scrape_interval.as_secs());
    if let Err(failure) = &sources {
        context
            .out
            .warn(format!("the data sources are left out: {}", failure.message));
    }
    let namespace = args
        .model
        .namespace
        .as_deref()
        .or(config.environment.namespace.as_deref());
    let namespace = namespace.unwrap_or("default");
    provision::config_maps(boards, &args.model.folder, namespace, sources.ok().as_ref())
        .map_err(|error| unwritable(&error))
}

/// Where the data is, as the catalogue says it.
fn sources(args: &super::Args, context: &Context, config: &Config, scrape_interval: u64) -> Result<Sources, Failure> {
    let environment = &config.environment;
    Ok(Sources {
        prometheus: platform::prometheus_of(context, config)?.url.clone(),
        scrape_interval: scrape_interval.max(1),
        loki: environment.loki.as_ref().map(|loki| loki.server.url.clone()),
        traces: environment.traces.as_ref().map(|traces| Traces {
            kind: if args.model.tempo {
                TraceStore::Tempo
            } else {
                TraceStore::Jaeger
            },
            url: traces.url.clone(),
        }),
    })
}
