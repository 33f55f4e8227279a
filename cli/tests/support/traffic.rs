//! Requests at a constant rate for as long as a test lasts, with every failure kept.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use opsctl_load::{Outcome, Plan, Request, RequestSource, Silent, Summary, Target, run};
use tokio_util::sync::CancellationToken;

/// Traffic that goes on until it is dropped or stopped.
pub struct Traffic {
    seen: Arc<Seen>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Summary>>,
}

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
}

struct Source<F>(F, Arc<Seen>);

impl<F: Fn(u64) -> Request + Send + Sync + 'static> RequestSource for Source<F> {
    fn request(&self, seq: u64) -> Request {
        (self.0)(seq)
    }

    fn observe(&self, _seq: u64, outcome: &Outcome<'_>) {
        let failure = match outcome {
            Outcome::Completed(response) if response.status < 400 => {
                self.1.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Outcome::Completed(response) => format!("status {}", response.status),
            Outcome::Failed(failure) => format!("{failure:?}"),
            Outcome::Dropped => "never sent".to_owned(),
        };
        self.1.failures.lock().expect("nobody panics with it").push(failure);
    }
}

impl Traffic {
    /// Starts it, to the root of a server on this machine.
    pub fn start(port: u16, rate: &str) -> Self {
        let target = format!("http://127.0.0.1:{port}/").parse().expect("an address");
        let request = Request::get("/").expect("a path");
        Self::of(target, rate, move |_| request.clone())
    }

    /// Starts it, with the requests that `make` makes of their numbers.
    pub fn of(target: Target, rate: &str, make: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = CancellationToken::new();
        let source = Source(make, Arc::clone(&seen));
        let plan = Plan::new(
            target,
            rate.parse().expect("a rate"),
            Duration::from_hours(2),
            Arc::new(source),
        );
        let cancel = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime
                .block_on(run(plan, Arc::new(Silent), cancel))
                .expect("the load engine")
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Requests that were answered well.
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::Relaxed)
    }

    /// Every failure since the last call.
    pub fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.failures.lock().expect("nobody panics with it"))
    }

    /// Ends it.
    pub fn stop(mut self) -> Summary {
        self.stop.cancel();
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("the load engine")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
