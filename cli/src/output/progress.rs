//! Progress on stderr: on a terminal one line, redrawn at most ten times a second and erased at the end; elsewhere a
//! plain line per phase and one every ten seconds. It only shows; what is counted comes from the libraries.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::context::{terminal_size, uptime};

/// How far something is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Amount {
    /// Finished so far, in `unit`.
    pub(crate) done: u64,
    /// The whole, when it is known.
    pub(crate) total: Option<u64>,
    /// Bytes rather than a plain count.
    pub(crate) bytes: bool,
    /// What is being worked on.
    pub(crate) item: String,
}

enum Message {
    Phase(String),
    Amount(Amount),
}

/// A running progress line. Dropping it erases the line.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    sender: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressLine {
    /// Starts drawing for `subject`, unless it is not `shown`; `live` is a terminal.
    pub(super) fn start(subject: String, shown: bool, live: bool) -> Self {
        if !shown {
            return Self {
                sender: None,
                thread: None,
            };
        }
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || draw(&subject, live, &receiver));
        Self {
            sender: Some(sender),
            thread: Some(thread),
        }
    }

    /// A new phase, for example `reading` or `writing the index`.
    pub(crate) fn phase(&self, phase: impl Into<String>) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Phase(phase.into()));
        }
    }

    /// How far the phase is.
    pub(crate) fn amount(&self, amount: Amount) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Amount(amount));
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.sender.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const FRAME: Duration = Duration::from_millis(100);
const PLAIN: Duration = Duration::from_secs(10);
/// Columns of the longest line.
const MOST: usize = 118;

/// Whether a line stands on the terminal, where the cursor is. Changed only by who has stderr locked.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Erases the line, for who says something: the next frame draws it below.
pub(super) fn erase(stderr: &mut impl Write) {
    if DRAWN.swap(false, Ordering::Relaxed) {
        let _ = write!(stderr, "\r\u{1b}[2K").and_then(|()| stderr.flush());
    }
}

fn draw(subject: &str, live: bool, receiver: &Receiver<Message>) {
    let started = uptime();
    let mut phase = String::new();
    let mut amount = Amount::default();
    let mut last = started;
    let mut phase_started = started;
    let mut new_phase = false;
    loop {
        let next = receiver.recv_timeout(FRAME);
        match next {
            Ok(Message::Phase(name)) => {
                new_phase = name != phase;
                phase = name;
                phase_started = uptime();
                amount = Amount::default();
            }
            Ok(Message::Amount(new)) => amount = new,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = uptime();
        // Anything under a second needs no progress.
        if now.saturating_sub(started) < Duration::from_secs(1) {
            continue;
        }
        let line = line(subject, &phase, &amount, now.saturating_sub(phase_started), width(live));
        let mut stderr = std::io::stderr().lock();
        if live && now.saturating_sub(last) >= FRAME {
            let _ = write!(stderr, "\r\u{1b}[2K{line}").and_then(|()| stderr.flush());
            DRAWN.store(true, Ordering::Relaxed);
            last = now;
        } else if !live && (new_phase || now.saturating_sub(last) >= PLAIN) {
            let _ = writeln!(stderr, "{line}");
            new_phase = false;
            last = now;
        }
    }
    erase(&mut std::io::stderr().lock());
}

/// How much of a line fits: one that wraps could not be drawn over.
fn width(live: bool) -> usize {
    let terminal = if live { terminal_size(std::io::stderr()).0 } else { MOST };
    terminal.saturating_sub(1).clamp(1, MOST)
}

fn line(subject: &str, phase: &str, amount: &Amount, elapsed: Duration, width: usize) -> String {
    let what = if phase.is_empty() {
        subject.to_owned()
    } else {
        format!("{subject}: {phase}")
    };
    let how_far = how_far(amount, elapsed);
    let whole = what.chars().count() + how_far.chars().count();
    if whole <= width {
        return what + &how_far;
    }
    // What moves is what is looked at, so it stays.
    let room = width.saturating_sub(how_far.chars().count() + 1);
    let what: String = what.chars().take(room).collect();
    format!("{what}…{how_far}").chars().take(width).collect()
}

/// `, 3 of 8, 2.1 s left, orders-db`
fn how_far(amount: &Amount, elapsed: Duration) -> String {
    let mut text = String::new();
    let seconds = elapsed.as_secs_f64();
    if amount.done > 0 && amount.bytes {
        text.push_str(&format!(", {}", super::bytes(amount.done)));
        if let Some(total) = amount.total {
            text.push_str(&format!(" of {}", super::bytes(total)));
        }
        if seconds > 0.5 {
            text.push_str(&format!(", {}/s", super::bytes((amount.done as f64 / seconds) as u64)));
        }
    } else if amount.done > 0 {
        text.push_str(&format!(", {}", amount.done));
        if let Some(total) = amount.total {
            text.push_str(&format!(" of {total}"));
        }
    }
    if let Some(total) = amount
        .total
        .filter(|total| *total > amount.done && amount.done > 0 && seconds > 1.0)
    {
        let left = seconds * (total - amount.done) as f64 / amount.done as f64;
        text.push_str(&format!(", {} left", super::seconds(left)));
    }
    if !amount.item.is_empty() {
        text.push_str(&format!(", {}", amount.item));
    }
    if amount.done == 0 && seconds >= 2.0 {
        text.push_str(&format!(", waiting for {}", super::seconds(seconds)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_a_line_that_does_not_wrap_and_still_says_how_far() {
        let amount = Amount {
            done: 3,
            total: Some(8),
            ..Amount::default()
        };
        let line = |width| {
            line(
                "building the services",
                "cargo build",
                &amount,
                Duration::from_secs(3),
                width,
            )
        };
        assert_eq!(line(80), "building the services: cargo build, 3 of 8, 5.0 s left");
        assert_eq!(line(40), "building the servic…, 3 of 8, 5.0 s left");
        assert_eq!(line(10).chars().count(), 10);
    }
}
