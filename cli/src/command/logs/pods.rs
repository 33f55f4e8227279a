//! The lines of pods: the last ones in the order of their time, then those that come, of pods that come later too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use opsctl_platform::kube::KubePlatform;
use opsctl_platform::kube::pods::{LogLine, LogQuery};
use opsctl_platform::{Instance, Platform as _, PlatformError};
use tokio::sync::mpsc;

use super::{Args, tell};
use crate::context::{Context, Signals};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::Opened;
use crate::request::Line;
use crate::target;

/// How often it is looked for new pods.
const LOOK: Duration = Duration::from_secs(2);
/// How many logs are read at one time.
const AT_ONCE: usize = 16;
/// Lines that wait to be printed.
const WAITING: usize = 1024;

/// A line and where it came from.
struct Said {
    /// `eu/` where several clusters are asked.
    prefix: String,
    instance: Instance,
    line: LogLine,
}

/// A pod on a cluster.
#[derive(Clone)]
struct Source {
    prefix: String,
    kube: Arc<KubePlatform>,
    instance: Instance,
}

/// Runs the command on clusters.
pub(super) fn run(args: &Args, context: &Context, all: &[Opened]) -> Outcome {
    context.block_on(async {
        let query = LogQuery {
            last: args.since.is_none().then_some(args.last),
            since: args.since,
            ..LogQuery::default()
        };
        if args.follow {
            return follow(args, context, all, query).await;
        }
        for said in read(args, all, query).await? {
            say(context, said)?;
        }
        Ok(Exit::Done)
    })
}

/// Every line that contains what is asked for, in the order of time; not more than the last `limit` of each pod are
/// looked at.
pub(super) async fn search(
    args: &Args,
    all: &[Opened],
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Line>, Failure> {
    let query = LogQuery {
        last: Some(limit),
        since: args.since,
        ..LogQuery::default()
    };
    let mut said = read(args, all, query).await?;
    said.retain(|said| wanted(&said.line.text));
    Ok(said.into_iter().map(line).collect())
}

async fn read(args: &Args, all: &[Opened], query: LogQuery) -> Result<Vec<Said>, Failure> {
    let mut logs = futures::stream::iter(sources(args, all).await?)
        .map(|source| async move { once(&source, query).await })
        .buffer_unordered(AT_ONCE);
    let mut said = Vec::new();
    while let Some(log) = logs.next().await {
        said.extend(log?);
    }
    // A line without a time, of which there should be none, stays behind the one before it.
    said.sort_by_key(|said| said.line.time);
    Ok(said)
}

/// The pods that are meant.
async fn sources(args: &Args, all: &[Opened]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for opened in all {
        let Some(there) = opened.there() else { continue };
        let states = there.kube.states().await;
        let prefix = match opened.cluster() {
            Some(cluster) if all.len() > 1 => format!("{cluster}/"),
            _ => String::new(),
        };
        for state in states.map_err(|error| error::platform::failure("could not see what runs", &error))? {
            if args.services.is_empty() || args.services.contains(&state.name) {
                sources.extend(state.instances.into_iter().map(|instance| Source {
                    prefix: prefix.clone(),
                    kube: Arc::clone(&there.kube),
                    instance,
                }));
            }
        }
    }
    if let Some(wanted) = &args.instance {
        let known: Vec<String> = sources.iter().map(|source| source.instance.id.clone()).collect();
        sources.retain(|source| source.instance.id == *wanted);
        if sources.is_empty() && !args.follow {
            return Err(target::unknown("instance", wanted, &known));
        }
    }
    Ok(sources)
}

/// What a pod has printed; nothing, when it is gone or has not started.
async fn once(source: &Source, query: LogQuery) -> Result<Vec<Said>, Failure> {
    let lines = async {
        source
            .kube
            .log(&source.instance, query)
            .await?
            .try_collect::<Vec<_>>()
            .await
    };
    match lines.await {
        Ok(lines) => Ok(lines.into_iter().map(|line| source.said(line)).collect()),
        Err(error) if nothing_there(&error) => Ok(Vec::new()),
        Err(error) => {
            let what = format!("could not read the log of `{}`", source.instance.id);
            Err(error::platform::failure(what, &error))
        }
    }
}

/// A pod that is gone, and one whose container waits to be started, have no log.
fn nothing_there(error: &PlatformError) -> bool {
    matches!(
        error,
        PlatformError::Gone { .. } | PlatformError::Missing { .. } | PlatformError::Refused { .. }
    )
}

impl Source {
    fn said(&self, line: LogLine) -> Said {
        Said {
            prefix: self.prefix.clone(),
            instance: self.instance.clone(),
            line,
        }
    }
}

async fn follow(args: &Args, context: &Context, all: &[Opened], query: LogQuery) -> Outcome {
    let mut signals = Signals::listen()?;
    let (tell, mut told) = mpsc::channel(WAITING);
    let mut known = HashSet::new();
    let mut query = query;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let sources = match sources(args, all).await {
                    Ok(sources) => sources,
                    // The first look tells what is wrong; later ones may find the cluster away for a while.
                    Err(failure) if known.is_empty() => return Err(failure),
                    Err(failure) => {
                        context.out.warn(&failure.message);
                        continue;
                    }
                };
                for source in sources {
                    if known.insert(source.instance.uid.clone()) {
                        tokio::spawn(follow_one(source, query, tell.clone()));
                    }
                }
                // A pod that comes later is shown from its start.
                query = LogQuery::default();
            }
            Some(said) = told.recv() => {
                say(context, said)?;
                if context.out.is_closed() {
                    return Ok(Exit::Done);
                }
            }
            _ = signals.next() => return Ok(Exit::Done),
        }
    }
}

/// Follows one pod until it is gone, across restarts of its container.
async fn follow_one(source: Source, mut query: LogQuery, tell: mpsc::Sender<Said>) {
    query.follow = true;
    let mut last: Option<Timestamp> = None;
    loop {
        match source.kube.log(&source.instance, query).await {
            Ok(mut lines) => {
                while let Some(Ok(line)) = lines.next().await {
                    // The kubelet begins at the whole second.
                    if line.time.is_some() && line.time <= last {
                        continue;
                    }
                    last = line.time.or(last);
                    if tell.send(source.said(line)).await.is_err() {
                        return;
                    }
                }
            }
            Err(PlatformError::Gone { .. }) => return,
            Err(error) => tracing::debug!(%error, "cannot follow"),
        }
        tokio::time::sleep(LOOK / 2).await;
        query = LogQuery {
            follow: true,
            from: last,
            ..LogQuery::default()
        };
    }
}

fn line(said: Said) -> Line {
    let mut line = Line::new(
        said.instance.service,
        format!("{}{}", said.prefix, said.instance.id),
        said.line.text,
    );
    line.time = line.time.or(said.line.time);
    line
}

fn say(context: &Context, said: Said) -> Result<(), Failure> {
    tell(context, &line(said))
}
