//! One connection through a hop: both directions, and the faults that meet it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::fault::{Delay, Terminal};

/// How much is read at once, and how much a delay keeps of one connection before it reads no more.
const CHUNK: usize = 32 * 1024;
const KEPT: usize = 1024 * 1024;

/// What a connection may do now.
#[derive(Clone, Copy, Default)]
struct Passage {
    /// What comes back comes later.
    delay: Option<Delay>,
    /// Nothing is passed on.
    shut: bool,
}

/// The faults as one connection meets them.
struct Meeting<'a> {
    shared: &'a Shared,
    seen: u64,
    delay_ended: Option<CancellationToken>,
    hold_ended: Option<CancellationToken>,
    passage: Passage,
}

/// A fault ended the connection.
struct Reset;

/// Carries one connection to its end.
pub(super) async fn carry(client: TcpStream, to: &str, shared: &Shared) {
    let counted = &shared.counted;
    counted.accepted.fetch_add(1, Ordering::Relaxed);
    counted.open.fetch_add(1, Ordering::Relaxed);
    pass(client, to, shared).await;
    counted.open.fetch_sub(1, Ordering::Relaxed);
}

async fn pass(mut client: TcpStream, to: &str, shared: &Shared) {
    let mut meeting = Meeting {
        shared,
        seen: 0,
        delay_ended: None,
        hold_ended: None,
        passage: Passage::default(),
    };
    // A fault that is on keeps the connection from the other side: what is down sees no attempts.
    loop {
        if let Err(Reset) = meeting.meet() {
            return reset(&client, None, shared);
        }
        if !meeting.passage.shut {
            break;
        }
        meeting.changed().await;
    }
    let mut server = match TcpStream::connect(to).await {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%to, %error, "the other side cannot be reached");
            shared.counted.unreached.fetch_add(1, Ordering::Relaxed);
            let _ = client.set_zero_linger();
            return;
        }
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (tell, passage) = watch::channel(meeting.passage);
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(from_client, to_server, passage.clone(), false, &shared.counted.bytes_in);
        let back = pump(from_server, to_client, passage, true, &shared.counted.bytes_out);
        let both = async { tokio::try_join!(there, back).map(drop) };
        tokio::select! {
            // A broken side breaks the other.
            ended = both => ended.map_err(|_| false),
            Reset = meeting.tell(&tell) => Err(true),
        }
    };
    match ended {
        Ok(()) => {}
        Err(true) => reset(&client, Some(&server), shared),
        Err(false) => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}

fn reset(client: &TcpStream, server: Option<&TcpStream>, shared: &Shared) {
    shared.counted.reset.fetch_add(1, Ordering::Relaxed);
    // The close that follows is a reset. A socket that refuses is gone already.
    let _ = client.set_zero_linger();
    if let Some(server) = server {
        let _ = server.set_zero_linger();
    }
}

impl Meeting<'_> {
    /// Lets the faults act that it has not met, and forgets those that have ended.
    fn meet(&mut self) -> Result<(), Reset> {
        let counted = &self.shared.counted;
        let over = |token: &Option<CancellationToken>| token.as_ref().is_some_and(CancellationToken::is_cancelled);
        if over(&self.delay_ended) {
            self.delay_ended = None;
            self.passage.delay = None;
        }
        if over(&self.hold_ended) {
            self.hold_ended = None;
            self.passage.shut = false;
        }
        let newest = self.shared.faults.newest();
        if newest == self.seen {
            return Ok(());
        }
        let hit = self.shared.faults.draw("", self.seen, Instant::now());
        self.seen = newest;
        if hit.delay.is_some() {
            self.passage.delay = hit.delay;
            self.delay_ended = hit.delay_ended;
            counted.delayed.fetch_add(1, Ordering::Relaxed);
        }
        match hit.terminal {
            Some(Terminal::Reset) => return Err(Reset),
            Some(Terminal::Blackhole(ended)) => {
                self.passage.shut = true;
                self.hold_ended = Some(ended);
                counted.swallowed.fetch_add(1, Ordering::Relaxed);
            }
            // Refused by the control: there is no answer to give.
            Some(Terminal::Error(_)) | None => {}
        }
        Ok(())
    }

    /// Waits until a fault was put or one that it has met has ended.
    async fn changed(&self) {
        let changed = self.shared.faults.changed().notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self.shared.faults.newest() != self.seen {
            return;
        }
        tokio::select! {
            () = changed => {}
            () = end_of(self.delay_ended.as_ref()) => {}
            () = end_of(self.hold_ended.as_ref()) => {}
        }
    }

    /// Tells both directions what they may do, until a fault ends the connection.
    async fn tell(&mut self, tell: &watch::Sender<Passage>) -> Reset {
        loop {
            if let Err(reset) = self.meet() {
                return reset;
            }
            tell.send_replace(self.passage);
            self.changed().await;
        }
    }
}

/// Never, when there is none.
async fn end_of(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// One direction. As on a longer line, delayed parts do not wait for each other, but keep their order.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut passage: watch::Receiver<Passage>,
    delayed: bool,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut line: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let mut kept = 0;
    let mut ended = false;
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        let now = *passage.borrow_and_update();
        let due = line.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            changed = passage.changed() => if changed.is_err() {
                return Ok(());
            },
            () = until(due), if !now.shut && due.is_some() => {
                if let Some((_, part)) = line.pop_front() {
                    kept -= part.len();
                    count.fetch_add(part.len() as u64, Ordering::Relaxed);
                    to.write_all(&part).await?;
                }
            }
            read = from.read_buf(&mut buffer), if !now.shut && !ended && kept < KEPT => {
                ended = read? == 0;
                let part = buffer.split().freeze();
                buffer.reserve(CHUNK);
                let delay = now.delay.filter(|_| delayed);
                if delay.is_none() && line.is_empty() {
                    count.fetch_add(part.len() as u64, Ordering::Relaxed);
                    to.write_all(&part).await?;
                } else if !part.is_empty() {
                    let after = Instant::now() + delay.map(Delay::draw).unwrap_or_default();
                    let due = line.back().map_or(after, |(before, _)| after.max(*before));
                    kept += part.len();
                    line.push_back((due, part));
                }
            }
        }
        if ended && line.is_empty() {
            return to.shutdown().await;
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
