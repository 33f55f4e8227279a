//! `opsctl backup pg --follow` as a child: what it tells, and its end in every way.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::dice::pass;
use crate::sandbox::Sandbox;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A receiver that runs. Dropping it kills it.
pub struct Follower {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    log: std::path::PathBuf,
}

impl Follower {
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::run(sandbox, sandbox.command(&["backup", "pg", "--follow", "--json"]))
    }

    /// The command may be one in other surroundings.
    pub fn run(sandbox: &Sandbox, mut command: Command) -> Self {
        let log = sandbox.path("follower.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("our own file");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("opsctl starts");
        let events = Arc::new(Mutex::new(Vec::new()));
        let (heard, out) = (Arc::clone(&events), child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // One that is killed may leave half a line.
                if let Ok(event) = serde_json::from_str(&line) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
            }
        });
        Self { child, events, log }
    }

    /// What it told until now.
    pub fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    pub fn has_told(&self, kind: &str) -> bool {
        self.events().iter().any(|event| event["type"] == kind)
    }

    /// How many base backups it took.
    pub fn bases(&self) -> u64 {
        self.events()
            .iter()
            .filter(|event| event["type"] == "base_backup")
            .count() as u64
    }

    /// The moment up to which it said that all is in the repository.
    pub fn promised(&self) -> Option<Timestamp> {
        let events = self.events();
        let moments = events.iter().filter_map(|event| event["until"].as_str()?.parse().ok());
        moments.max()
    }

    /// Waits until something holds while it runs.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        tokio::task::block_in_place(|| {
            let late = deadline();
            while !holds(self) {
                if let Some(status) = self.child.try_wait().expect("our own child") {
                    panic!("it ended before: {what}: {status}\n{}", self.said());
                }
                assert!(!late(), "{what} did not happen\n{}", self.said());
                pass(Duration::from_millis(10));
            }
        });
    }

    /// Waits until it cannot reach the server, and so has stored all that it had received. One that was not connected has
    /// nothing, and perhaps nothing new to tell.
    pub fn has_given_up(&mut self, heard: usize) {
        let unreachable = |event: &Value| {
            event["error"]
                .as_str()
                .is_some_and(|error| error.contains("cannot be reached"))
        };
        tokio::task::block_in_place(|| {
            for _ in 0..300 {
                if self.events().iter().skip(heard).any(unreachable) {
                    return;
                }
                pass(Duration::from_millis(10));
            }
        });
    }

    /// What it said on stderr, with that of those before it.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The exit code with which it ends by itself.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        tokio::task::block_in_place(|| {
            let late = deadline();
            loop {
                if let Some(status) = self.child.try_wait().expect("our own child") {
                    return status.code().unwrap_or(-1);
                }
                assert!(!late(), "it does not end\n{}", self.said());
                pass(Duration::from_millis(10));
            }
        })
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our own child");
        let code = self.ends();
        assert_eq!(code, 0, "it was told to end\n{}", self.said());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a minute has passed.
#[expect(clippy::disallowed_methods, reason = "a deadline for a real process")]
pub fn deadline() -> impl Fn() -> bool {
    let begun = Instant::now();
    move || begun.elapsed() > PATIENCE
}
