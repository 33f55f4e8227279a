//! What goes on for as long as `schedule run` does: the log of each PostgreSQL that is saved as a whole is received, and
//! what changes in each SQLite database with `backup.ship` is shipped. Each is a process of its own, the same that somebody
//! would start by hand, and there are never two. One that ends is started again, after a pause that grows.
//!
//! It ends with us, however we end: its stdin is a pipe that nobody writes to, and it stops in good order when that closes.

use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::work::Work;
use crate::config::{Config, Datastore, DatastoreKind};
use crate::exit::Exit;
use crate::physical;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause, and how long one must have gone on for the next to be the first again.
const LONGEST: Duration = Duration::from_mins(1);

/// What goes on for a datastore, as a flag of `backup`.
fn flag(store: &Datastore) -> Option<&'static str> {
    if physical::is_physical(store) {
        Some("--follow")
    } else {
        (store.kind == DatastoreKind::Sqlite && store.ship.is_some()).then_some("--continuous")
    }
}

/// The datastores of which something goes on.
pub(crate) fn of(config: &Config) -> Vec<&Datastore> {
    config
        .datastores
        .values()
        .filter(|store| flag(store).is_some())
        .collect()
}

/// What goes on for one of them, as the words of a command line behind the global flags.
pub(crate) fn command(store: &Datastore) -> Vec<String> {
    let words = ["backup", &store.name].into_iter().chain(flag(store));
    words.map(str::to_owned).collect()
}

/// Keeps it going until `cancel`, and waits for its end.
pub(crate) async fn keep(work: &Work<'_>, stores: &[&Datastore], cancel: &CancellationToken) {
    join_all(stores.iter().map(|store| one(work, store, cancel))).await;
}

async fn one(work: &Work<'_>, store: &Datastore, cancel: &CancellationToken) {
    let out = &work.context.out;
    let what = command(store).join(" ");
    let mut pauses = Pauses::new();
    let mut elsewhere = false;
    while !cancel.is_cancelled() {
        let began = Instant::now();
        let ended = run(work, store, cancel).await;
        if cancel.is_cancelled() {
            break;
        }
        let pause = pauses.after(began.elapsed());
        let in_a_while = humantime::format_duration(Duration::from_secs(pause.as_secs().max(1)));
        let pause = match ended {
            // Whoever does it elsewhere may end, and then it is ours.
            Ok(Some(Exit::Locked)) => {
                if !std::mem::replace(&mut elsewhere, true) {
                    out.note(format!("{what} goes on elsewhere; it is taken over when that ends"));
                }
                LONGEST
            }
            ended => {
                elsewhere = false;
                let how = match ended {
                    Ok(Some(exit)) => format!("ended with {}", exit.number()),
                    Ok(None) => "was killed".to_owned(),
                    Err(error) => format!("could not be started: {error}"),
                };
                out.warn(format!("{what} {how}; it begins again in {in_a_while}"));
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => break,
        }
    }
}

/// One process to its end; without a number if a signal ended it.
async fn run(work: &Work<'_>, store: &Datastore, cancel: &CancellationToken) -> Result<Option<Exit>, std::io::Error> {
    let executable = work
        .context
        .executable()
        .map_err(|failure| std::io::Error::other(failure.message))?;
    // What it prints is told, not our data.
    let stdout = rustix::io::dup(std::io::stderr()).map_or_else(|_| Stdio::null(), Stdio::from);
    let mut child = tokio::process::Command::new(executable)
        .args(work.global_arguments())
        .args(command(store))
        .arg("--until-stdin-ends")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::inherit())
        // Ctrl-C is ours to pass on.
        .process_group(0)
        .spawn()?;
    // Taken, since to wait would close it.
    let mut ours = child.stdin.take();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = cancel.cancelled(), if ours.is_some() => drop(ours.take()),
        }
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map(|code| Exit::from_number(code).unwrap_or(Exit::Failed)))
}

/// Each pause is twice as long as the one before, until something went on for long.
struct Pauses {
    next: Duration,
}

impl Pauses {
    const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after a process that ran for `ran`.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= LONGEST {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_went_on_for_long() {
        let mut pauses = Pauses::new();
        let seconds = |ran: u64, pauses: &mut Pauses| pauses.after(Duration::from_secs(ran)).as_secs();
        let grown: Vec<u64> = (0..8).map(|_| seconds(0, &mut pauses)).collect();
        assert_eq!(grown, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(seconds(59, &mut pauses), 60);
        assert_eq!(seconds(60, &mut pauses), 1);
        assert_eq!(seconds(1, &mut pauses), 2);
    }
}
