//! The beginning of a connection: who the server is, whether its log is that of the archive, and where to go on.

use std::sync::Arc;
use std::time::Duration;

use replication::{
    Address, Connection, History, Identity, Position, SegmentSize, Slot, SlotLifetime, Timeline, WalStream,
};
use tokio::sync::watch;

use super::super::archive::{Archive, ArchiveError, File, Lost};
use super::super::wal::{Expected, Reader};
use super::resume::{self, floor};
use super::session::{Core, Session};
use super::status::{Status, Warning};
use super::tail::{Tail, of_ancestor};
use super::uploads::{Keeper, Uploads};
use super::{ReceiverError, ReceiverOptions};
use crate::threads::blocking;

/// What a server does where it does not say otherwise.
const SENDER_TIMEOUT: Duration = Duration::from_mins(1);

/// What came of a connection.
pub(super) enum Opened {
    /// The log is on its way.
    Streaming(Box<Session>),
    /// What comes next is not there any more.
    Gap(Lost),
}

/// Connects, and begins to stream where the archive ends.
pub(super) async fn open(
    archive: &Archive,
    options: &ReceiverOptions,
    status: &Arc<watch::Sender<Status>>,
) -> Result<Opened, ReceiverError> {
    let mut connection = Connection::open(&options.address, &options.application).await?;
    let address = connection.address().clone();
    let server = connection.identify().await?;
    let size = connection.show("wal_segment_size").await?;
    let size = SegmentSize::of_setting(&size).map_err(|source| ReceiverError::Malformed {
        what: "wal_segment_size",
        source,
    })?;
    let sender_timeout = connection.show("wal_sender_timeout").await?;
    let warnings = warnings(&mut connection, options).await?;
    let listed = archive.listed(server.system).await?;
    let stranger = listed.others.last().filter(|_| listed.held.is_none());
    let expected = options.system.or(stranger.copied()).unwrap_or(server.system);
    if expected != server.system {
        let (archive, server) = (expected, server.system);
        return Err(ReceiverError::Foreign { archive, server });
    }
    if let Some(held) = listed.held.as_ref().filter(|held| held.segment_size != size) {
        let (archive, server) = (held.segment_size, size);
        return Err(ReceiverError::SegmentSize { archive, server });
    }
    let keeper = Keeper {
        archive: archive.clone(),
        system: server.system,
        size,
        status: Arc::clone(status),
    };
    if let Some(held) = &listed.held {
        // Before a slot is made on a server that is not meant.
        resume::not_ahead(held, &server)?;
    }
    let slot = slot(&mut connection, options).await?;
    let history = history(&mut connection, &keeper, server.timeline).await?;
    let start = resume::start(
        listed.held.as_ref(),
        &listed.gaps,
        &history,
        &server,
        slot.restart,
        size,
    )?;
    ancestors(&mut connection, &keeper, &history, &|timeline| {
        let held = listed.held.as_ref();
        held.is_some_and(|held| held.histories.contains_key(&timeline))
    })
    .await?;
    let reader = reader(&keeper, &history, &server, &start).await?;
    let standby = is_standby(&mut connection).await;

    status.send_modify(|status| {
        status.server = address.hosts().first().map(ToString::to_string);
        status.system = Some(server.system);
        status.timeline = Some(start.timeline);
        status.durable = start.durable;
        status.end_of_log = server.flushed;
        status.warnings = warnings.into_iter().chain(start.left_behind.clone()).collect();
    });
    let stream = match connection.stream(Some(&options.slot), start.timeline, start.at).await {
        Ok(stream) => stream,
        Err(error) if error.is_removed() => {
            let from = Position {
                lsn: start.durable,
                timeline: start.timeline,
            };
            return gap(&address, options, &keeper, from, error).await.map(Opened::Gap);
        }
        Err(error) => return Err(said(error, options)),
    };
    let core = Core::new(
        options.clone(),
        address,
        Uploads::new(keeper, start.durable),
        Tail::new(start.timeline, start.at, size, reader),
        start.durable,
        timeout(&sender_timeout),
        standby,
    );
    Ok(Opened::Streaming(Box::new(Session::new(stream, core))))
}

/// The slot, made if it is not there.
async fn slot(connection: &mut Connection, options: &ReceiverOptions) -> Result<Slot, ReceiverError> {
    const UNKNOWN: Slot = Slot {
        restart: None,
        timeline: None,
    };
    // Before version 15 it takes SQL to see a slot, which not everybody is allowed.
    let seen = match connection.slot(&options.slot).await {
        Ok(seen) => seen,
        Err(error) if connection.server_version().major() < 15 => {
            tracing::debug!(%error, "the slot cannot be looked at");
            None
        }
        Err(error) => return Err(said(error, options)),
    };
    if let Some(slot) = seen {
        return Ok(slot);
    }
    match connection.create_slot(&options.slot, SlotLifetime::Permanent).await {
        Ok(()) => {}
        Err(error) if error.exists() => return Ok(UNKNOWN),
        Err(error) => return Err(said(error, options)),
    }
    Ok(connection.slot(&options.slot).await.ok().flatten().unwrap_or(UNKNOWN))
}

/// The history of a timeline, which is in the archive before anything of the timeline is.
pub(super) async fn history(
    connection: &mut Connection,
    keeper: &Keeper,
    timeline: Timeline,
) -> Result<History, ReceiverError> {
    if timeline == Timeline::FIRST {
        return Ok(History::default());
    }
    let file = connection.history(timeline).await?;
    let history = History::parse(&file.content).map_err(|source| ReceiverError::History { timeline, source })?;
    keeper.keep(File::History(timeline), file.content).await?;
    Ok(history)
}

/// The histories on the way, as far as the server still has them: a recovery asks for each.
async fn ancestors(
    connection: &mut Connection,
    keeper: &Keeper,
    history: &History,
    is_held: &(dyn Fn(Timeline) -> bool + Sync),
) -> Result<(), ReceiverError> {
    for switch in history.switches() {
        if switch.parent == Timeline::FIRST || is_held(switch.parent) {
            continue;
        }
        match connection.history(switch.parent).await {
            Ok(file) => keeper.keep(File::History(switch.parent), file.content).await?,
            Err(error) if error.is_removed() => {
                tracing::warn!(timeline = %switch.parent, "the server has no history of an earlier timeline");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A reader that has read the last whole segment of the archive, so that what comes must follow on it. Where the archive
/// has none, or one that cannot be read, it takes what comes first.
async fn reader(
    keeper: &Keeper,
    history: &History,
    server: &Identity,
    start: &resume::Start,
) -> Result<Reader, ReceiverError> {
    let own = start.timeline == server.timeline;
    let expected = Expected {
        system: Some(server.system),
        segment_size: keeper.size,
        timeline: start.timeline,
        history: if own {
            Some(history.clone())
        } else {
            of_ancestor(history, start.timeline)
        },
    };
    if let Some(before) = start.before {
        let file = File::Segment(before);
        match keeper.archive.get(keeper.system, &file, keeper.size).await {
            Ok(content) => {
                let mut reader = Reader::new(before.start(keeper.size), expected.clone());
                let read = blocking(move || reader.push(&content, |_| ()).map(|()| reader)).await?;
                match read {
                    Ok(reader) => return Ok(reader),
                    Err(fault) => tracing::warn!(%fault, "the last whole segment of the archive is damaged"),
                }
            }
            Err(error @ ArchiveError::Repository(_)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the last whole segment of the archive cannot be read"),
        }
    }
    Ok(Reader::new(start.at, expected))
}

/// Whether the server is a standby. How far the primary is, it does not know.
pub(super) async fn is_standby(connection: &mut Connection) -> bool {
    let answer = connection.show("in_hot_standby").await;
    answer.is_ok_and(|answer| answer == "on")
}

async fn warnings(connection: &mut Connection, options: &ReceiverOptions) -> Result<Vec<Warning>, ReceiverError> {
    let mut warnings = Vec::new();
    if connection.show("max_slot_wal_keep_size").await? == "-1" {
        warnings.push(Warning::SlotKeepsEverything);
    }
    let synchronous = connection.show("synchronous_standby_names").await?;
    if synchronous.contains('*') || synchronous.contains(&options.application) {
        warnings.push(Warning::CommitsMayWait(synchronous));
    }
    Ok(warnings)
}

/// Records what cannot be had any more, and leaves a slot that keeps what comes behind it. `refused` is how the server
/// said so.
pub(super) async fn gap(
    address: &Address,
    options: &ReceiverOptions,
    keeper: &Keeper,
    from: Position,
    refused: replication::Error,
) -> Result<Lost, ReceiverError> {
    let mut connection = Connection::open(address, &options.application).await?;
    let size = keeper.size;
    let kept = slot(&mut connection, options).await?.restart;
    let restart = if let Some(restart) = kept.filter(|restart| floor(*restart, size) > from.lsn) {
        restart
    } else {
        // It is lost: a slot that was is never used again.
        match connection.drop_slot(&options.slot).await {
            Err(error) if !error.is_missing() => return Err(said(error, options)),
            _ => {}
        }
        let flushed = connection.identify().await?.flushed;
        slot(&mut connection, options).await?.restart.unwrap_or(flushed)
    };
    let until = floor(restart, size);
    if until <= from.lsn {
        return Err(refused.into());
    }
    let lost = Lost {
        timeline: from.timeline,
        from: from.lsn,
        until,
    };
    keeper.keep(File::Gap(lost), bytes::Bytes::new()).await?;
    Ok(lost)
}

/// An error of the server, with the one told apart that another receiver makes.
pub(super) fn said(error: replication::Error, options: &ReceiverOptions) -> ReceiverError {
    if !error.slot_in_use() {
        return error.into();
    }
    let said = error.server().map(|server| server.message.clone());
    ReceiverError::SlotInUse {
        slot: options.slot.clone(),
        said: said.unwrap_or_default(),
    }
}

/// Begins the timeline that follows, in the segment in which the one before was left; the last one, where several were
/// left in it. `next` is the one that the server names.
pub(super) async fn next_timeline(
    mut connection: Connection,
    options: &ReceiverOptions,
    keeper: &Keeper,
    from: Position,
    next: Timeline,
) -> Result<(WalStream, Tail, bool), ReceiverError> {
    let own = connection.identify().await?.timeline;
    let way = history(&mut connection, keeper, own).await?;
    let timeline = resume::file_of_all(&way, own, from, keeper.size).unwrap_or(next);
    // Every history on the way is held before anything of its timeline.
    let history = history(&mut connection, keeper, timeline).await?;
    ancestors(&mut connection, keeper, &history, &|held| held <= from.timeline).await?;
    let start = floor(from.lsn, keeper.size);
    let standby = is_standby(&mut connection).await;
    let reader = Reader::new(
        start,
        Expected {
            system: Some(keeper.system),
            segment_size: keeper.size,
            timeline,
            history: Some(history),
        },
    );
    let stream = connection.stream(Some(&options.slot), timeline, start).await;
    let stream = stream.map_err(|error| said(error, options))?;
    Ok((stream, Tail::new(timeline, start, keeper.size, reader), standby))
}

/// What `SHOW` says of a time: `1min`, `30s`, `500ms`, `0`.
fn timeout(text: &str) -> Duration {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" | "" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "min" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return SENDER_TIMEOUT,
    };
    match digits.parse::<u32>() {
        // It waits for ever, and we look after it no less.
        Ok(0) | Err(_) => SENDER_TIMEOUT,
        Ok(number) => unit.saturating_mul(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_server_shows_them() {
        for (text, expected) in [
            ("1min", Duration::from_mins(1)),
            ("30s", Duration::from_secs(30)),
            ("2500ms", Duration::from_millis(2500)),
            ("0", SENDER_TIMEOUT),
            ("", SENDER_TIMEOUT),
            ("3 fortnights", SENDER_TIMEOUT),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
