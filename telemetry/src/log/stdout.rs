//! The sink that writes lines to stdout, or to another writer, on a thread of its own. A reader that does not read never
//! stops the service; one that went away, or a full disk, costs lines, and each is counted.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::Instant;
use tracing::dispatcher::{self, Dispatch};

use super::line::Line;
use super::maker::LineMaker;
use super::waiting::{LineLane, Lines};
use crate::metrics::Histogram;
use crate::report::DropReason;
use crate::sink::account::Fate;
use crate::sink::queue::{BatchLimits, Lost, Queue};

/// As in the report.
pub(crate) const NAME: &str = "stdout";
const BATCH: BatchLimits = BatchLimits {
    bytes: 256 * 1024,
    items: usize::MAX,
    linger: Duration::from_millis(1),
};

/// Starts the thread that writes what comes into `queue`, until it is closed and empty. The sink is the queue.
///
/// # Errors
/// When the thread cannot be made.
pub(crate) fn start(
    queue: Arc<Queue<LineLane>>,
    maker: Arc<LineMaker>,
    out: Out,
    took: Histogram,
) -> std::io::Result<()> {
    let writer = Writer {
        queue,
        maker,
        out,
        took,
        torn: false,
        lost: None,
    };
    let thread = std::thread::Builder::new().name("telemetry-stdout".to_owned());
    let running = thread.spawn(move || {
        // What a writer of the application logs must not come back to it. A file logs nothing, and as long as no thread
        // has a subscriber of its own, events of all threads are cheaper.
        let application = matches!(writer.out, Out::Writer(_));
        let _silence = application.then(|| dispatcher::set_default(&Dispatch::none()));
        writer.run();
    });
    running.map(drop)
}

/// Where lines are written.
pub(crate) enum Out {
    /// A file descriptor of our own. It is not `std::io::Stdout`, whose buffer would hide how much was written.
    File(File),
    /// What the application gave.
    Writer(Box<dyn Write + Send>),
}

impl Out {
    /// The process's standard output.
    pub(crate) fn stdout() -> std::io::Result<Self> {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::File(stdout.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Writer(writer) => writer.write(bytes).and_then(|count| writer.flush().map(|()| count)),
        }
    }

    /// Writes as much as can be; says how much.
    fn write_all(&mut self, bytes: &[u8], queue: &Queue<LineLane>) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !queue.is_sealed() => self.wait(),
                Err(_) => break,
            }
        }
        written
    }

    /// Waits until more may be written to what does not block by itself.
    fn wait(&self) {
        let limit = Duration::from_millis(100);
        match self {
            Self::File(file) => {
                let limit = Timespec::try_from(limit).ok();
                // Whatever it says, the next write knows better.
                let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], limit.as_ref());
            }
            Self::Writer(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

struct Writer {
    queue: Arc<Queue<LineLane>>,
    maker: Arc<LineMaker>,
    out: Out,
    took: Histogram,
    /// Whether the last thing that was written is a part of a line.
    torn: bool,
    /// Lines that could not be written and of which no line tells yet.
    lost: Option<Lost>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Lines::default();
        let mut bytes: Vec<u8> = Vec::new();
        while self.queue.take_blocking(BATCH, &mut batch) {
            bytes.clear();
            bytes.extend(self.torn.then_some(b'\n'));
            // A line of our own goes first and is counted once it is written.
            let notice = self.lost;
            if let Some(lost) = notice {
                let put = |line: Line<'_>| bytes.extend_from_slice(line.with_line_feed());
                self.maker.lost(NAME, lost, put);
            }
            let lines = batch.len();
            batch.drain(|line, _, _| bytes.extend_from_slice(line));
            let began = Instant::now();
            let written = self.out.write_all(&bytes, &self.queue);
            self.took.observe_duration(began.elapsed());
            let mut whole = if written == bytes.len() {
                lines + usize::from(notice.is_some())
            } else {
                let ends = bytes[..written].split(|byte| *byte == b'\n').count() - 1;
                ends.saturating_sub(usize::from(self.torn && written > 0))
            };
            if written > 0 {
                self.torn = bytes[written - 1] != b'\n';
            }
            if notice.is_some() && whole > 0 {
                whole -= 1;
                self.lost = None;
                self.queue.add_settled(1, Fate::Delivered);
            }
            let failed = lines - whole;
            self.queue.settle(whole as u64, Fate::Delivered);
            if failed > 0 {
                self.queue.settle(failed as u64, Fate::Dropped(DropReason::WriteFailed));
                let lost = self.lost.get_or_insert_with(|| Lost {
                    items: 0,
                    since: crate::wall_clock(),
                });
                lost.items += failed as u64;
            }
        }
    }
}
