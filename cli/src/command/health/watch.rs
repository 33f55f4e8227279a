//! `opsctl health watch`: asks again and again and shows what changes: a table in place on a terminal, else a line a
//! change. gRPC targets tell by themselves (Watch); HTTP and TCP are asked at an interval. The drawing is in `screen`.

mod screen;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::ask::{Answer, ask, client, refused, request, serving};
use super::check::Row;
use super::connect::Trouble;
use super::target::{self, Endpoint, Question, Target};
use super::{Asked, State};
use crate::context::{Context, Resizes, Signals};
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{latency, printable};
use screen::Screen;

/// Ask services how they are, again and again
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    #[command(flatten)]
    asked: Asked,

    /// How often HTTP and TCP are asked, and who runs is looked up
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,

    /// End after this time, with the exit code of `health check`
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
}

fn help() -> String {
    format!(
        "Examples:\n  # While a version goes out\n  opsctl health watch orders\n\n  \
         # For a script: a line for each change, for a minute\n  \
         opsctl health watch --json --for 1m | jq 'select(.state != \"healthy\")'\n\n\
         gRPC targets are watched (grpc.health.v1 Watch) and tell changes at once; those that cannot are asked.\n\
         Without a terminal, and under --json, there is one line for the first answer of each target and for each\n\
         change. Ctrl-C ends it.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Unreachable, Exit::Interrupted])
    )
}

/// Shortest interval: below, the asking itself is a load.
const SHORTEST: Duration = Duration::from_millis(50);
/// How often the table is drawn while nothing changes: the times in it go on.
const REDRAW: Duration = Duration::from_secs(1);

/// A target, its last answer, and since when it is so.
struct Watched {
    target: Target,
    answer: Option<Answer>,
    since: Timestamp,
    /// What it was before, if it was seen to change.
    before: Option<State>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// By instance (or address) and protocol.
type Key = (String, &'static str);

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    context.block_on_this_thread(watch(args, context))
}

async fn watch(args: &Args, context: &Context) -> Outcome {
    let interval = args.interval.max(SHORTEST);
    let (tell, mut news) = mpsc::channel(256);
    let mut signals = Signals::listen()?;
    let mut resizes = Resizes::listen()?;
    let mut view = View::new(context);
    let mut all: BTreeMap<Key, Watched> = BTreeMap::new();
    let end = args.limit.map(|limit| Instant::now() + limit);
    let mut look = tokio::time::interval(interval);
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let targets = target::resolve(context, &args.asked.targets, args.asked.group.as_deref()).await?;
                let follow = |target: &Target| {
                    let endpoint = target.endpoint.clone().ok()?;
                    let work = follow(target.clone(), endpoint, interval, args.asked.timeout, tell.clone());
                    Some(tokio::spawn(work))
                };
                reconcile(&mut all, targets, &mut view, follow)?;
            }
            Some((key, answer)) = news.recv() => {
                if let Some(watched) = all.get_mut(&key) {
                    view.heard(watched, answer)?;
                }
            }
            _ = redraw.tick() => {}
            () = resizes.next() => {}
            stop = signals.next() => {
                view.close(&all)?;
                return Ok(stop.exit());
            }
            () = until(end) => {
                view.close(&all)?;
                let worst = all.values().filter_map(|watched| Some(watched.answer.as_ref()?.state)).max();
                return Ok(worst.map_or(Exit::Unreachable, State::exit));
            }
        }
        // What came meanwhile is drawn at once.
        while let Ok((key, answer)) = news.try_recv() {
            if let Some(watched) = all.get_mut(&key) {
                view.heard(watched, answer)?;
            }
        }
        view.draw(&all)?;
        if context.out.is_closed() {
            return Ok(Exit::Done);
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Brings what is watched in line with what there is: new targets are followed, moved ones (a restart on other ports) are
/// followed there, those that do not run any more stay as unreachable, and what is gone is let go.
fn reconcile(
    all: &mut BTreeMap<Key, Watched>,
    targets: Vec<Target>,
    view: &mut View<'_>,
    follow: impl Fn(&Target) -> Option<JoinHandle<()>>,
) -> Result<(), Failure> {
    let mut kept: Vec<Key> = Vec::new();
    for target in targets {
        let name = target.name();
        if let Err(absent) = &target.endpoint {
            let known: Vec<Key> = all.keys().filter(|(known, _)| *known == name).cloned().collect();
            let keys = if known.is_empty() { vec![target.key()] } else { known };
            for key in keys {
                let watched = all
                    .entry(key.clone())
                    .or_insert_with(|| Watched::new(target.clone(), view.now()));
                if let Some(task) = watched.task.take() {
                    task.abort();
                }
                watched.target = target.clone();
                view.heard(watched, Answer::absent(absent))?;
                kept.push(key);
            }
            continue;
        }
        let key = target.key();
        let watched = all
            .entry(key.clone())
            .or_insert_with(|| Watched::new(target.clone(), view.now()));
        let moved = watched.target.endpoint != target.endpoint || watched.task.is_none();
        if moved {
            if let Some(task) = watched.task.take() {
                task.abort();
            }
            watched.task = follow(&target);
            watched.target = target;
        }
        kept.push(key);
    }
    let gone: Vec<Key> = all.keys().filter(|key| !kept.contains(key)).cloned().collect();
    for key in gone {
        if let Some(watched) = all.remove(&key) {
            view.gone(&watched)?;
        }
    }
    Ok(())
}

impl Watched {
    fn new(target: Target, now: Timestamp) -> Self {
        Self {
            target,
            answer: None,
            since: now,
            before: None,
            task: None,
        }
    }

    /// Whether a check of it would fail.
    fn is_down(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.state > State::Degraded)
    }
}

/// Asks one endpoint until it is stopped.
async fn follow(
    target: Target,
    endpoint: Endpoint,
    interval: Duration,
    limit: Duration,
    tell: mpsc::Sender<(Key, Answer)>,
) {
    let key = target.key();
    loop {
        let mut asks = true;
        if let Question::Grpc { service } = &endpoint.question {
            match stream(&endpoint, service, limit, &key, &tell).await {
                Ok(answered) => asks = !answered,
                Err(trouble) => {
                    asks = false;
                    if tell.send((key.clone(), Answer::none(&trouble))).await.is_err() {
                        return;
                    }
                }
            }
        }
        // HTTP and TCP, and servers that have no Watch.
        if asks && tell.send((key.clone(), ask(&target, limit).await)).await.is_err() {
            return;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Watches until the stream ends. `false`: the server cannot be watched, only asked.
async fn stream(
    endpoint: &Endpoint,
    service: &str,
    limit: Duration,
    key: &Key,
    tell: &mpsc::Sender<(Key, Answer)>,
) -> Result<bool, Trouble> {
    let late = |_| Trouble::new("timeout", format!("no answer within {}", latency(limit.as_secs_f64())));
    let asked = Instant::now();
    let opening = async {
        let mut client = client(endpoint, Some(limit)).await?;
        Ok::<_, Trouble>(client.watch(request(service)).await)
    };
    let mut statuses = match timeout(limit, opening).await.map_err(late)?? {
        Ok(statuses) => statuses.into_inner(),
        Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(false),
        Err(status) => {
            let answer = refused(&status, service)?;
            let _ = tell.send((key.clone(), answer)).await;
            return Ok(true);
        }
    };
    let mut first = Some(asked);
    loop {
        let next = statuses.message();
        let next = match first {
            Some(asked) => {
                let left = limit.saturating_sub(asked.elapsed());
                timeout(left, next).await.map_err(late)?
            }
            None => next.await,
        };
        let mut answer = match next {
            Ok(Some(message)) => serving(message.status, service),
            // It ended: the server drains. What is there now, the next connection tells.
            Ok(None) => return Ok(true),
            Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(false),
            Err(status) => {
                let _ = tell.send((key.clone(), refused(&status, service)?)).await;
                return Ok(true);
            }
        };
        answer.latency = first.take().map(|asked| asked.elapsed());
        if tell.send((key.clone(), answer)).await.is_err() {
            return Ok(true);
        }
    }
}

/// Who is told, and how.
struct View<'a> {
    context: &'a Context,
    /// On a terminal that can be redrawn.
    screen: Option<Screen<'a>>,
}

#[derive(Serialize)]
struct Change<'a> {
    schema: &'static str,
    r#type: &'static str,
    at: Timestamp,
    /// The state before; `None` for the first answer.
    before: Option<State>,
    #[serde(flatten)]
    row: Row<'a>,
}

impl<'a> View<'a> {
    fn new(context: &'a Context) -> Self {
        let live = context.out.width.is_some() && !context.out.json && context.env("TERM") != Some("dumb");
        Self {
            context,
            screen: live.then(|| Screen::open(context)),
        }
    }

    fn now(&self) -> Timestamp {
        self.context.now()
    }

    /// Takes an answer, and tells it when it is another state than before.
    fn heard(&self, watched: &mut Watched, mut answer: Answer) -> Result<(), Failure> {
        let old = watched.answer.take();
        // A stream tells no latency with later changes.
        answer.latency = answer.latency.or_else(|| old.as_ref()?.latency);
        let before = old.as_ref().map(|old| old.state);
        let same = old.is_some_and(|old| old.state == answer.state && old.reason == answer.reason);
        if before != Some(answer.state) {
            watched.since = self.now();
            watched.before = before;
        }
        let result = if same {
            Ok(())
        } else {
            self.tell(watched, &answer, before)
        };
        watched.answer = Some(answer);
        result
    }

    fn tell(&self, watched: &Watched, answer: &Answer, before: Option<State>) -> Result<(), Failure> {
        let row = Row::new(&watched.target, answer);
        if self.context.out.json {
            return self.context.out.event(&Change {
                schema: "opsctl.health_change/v1",
                r#type: "change",
                at: self.now(),
                before,
                row,
            });
        }
        if self.screen.is_some() {
            return Ok(());
        }
        let paint = self.context.out.stdout;
        let from = before.map_or(String::new(), |before| format!("{} -> ", before.word()));
        let took = answer
            .latency
            .map_or(String::new(), |took| format!("  {}", latency(took.as_secs_f64())));
        let asked = row.protocol.unwrap_or("-");
        self.context.out.line(&format!(
            "{}  {}  {asked}  {from}{}  {}{took}",
            self.now().strftime("%FT%TZ"),
            paint.apply(crate::output::Style::Hint, &printable(&watched.target.name())),
            paint.apply(answer.state.style(), answer.state.word()),
            printable(&answer.detail).replace('\n', "\\n"),
        ))
    }

    /// A target is not there any more: a smaller number of instances, or a service whose instances are watched now.
    fn gone(&self, watched: &Watched) -> Result<(), Failure> {
        let name = printable(&watched.target.name());
        if self.context.out.json {
            return self.context.out.event(&serde_json::json!({
                "schema": "opsctl.health_change/v1",
                "type": "gone",
                "at": self.now(),
                "service": watched.target.service,
                "instance": watched.target.instance,
            }));
        }
        if self.screen.is_some() {
            return Ok(());
        }
        self.context.out.line(&format!(
            "{}  {name}  is not there any more",
            self.now().strftime("%FT%TZ")
        ))
    }

    fn draw(&self, all: &BTreeMap<Key, Watched>) -> Result<(), Failure> {
        match &self.screen {
            Some(screen) => screen.draw(all),
            None => Ok(()),
        }
    }

    /// Gives the terminal back as it was, with the last table on it.
    fn close(&mut self, all: &BTreeMap<Key, Watched>) -> Result<(), Failure> {
        match self.screen.take() {
            Some(screen) => screen.close(all),
            None => Ok(()),
        }
    }
}
