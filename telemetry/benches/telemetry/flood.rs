//! As many lines as two threads can make, into the queue and out of it: lines a second that really went through. The
//! consumer throws them away; callers wait when the queue is full, so that none is lost.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use telemetry::{OnFull, Settings, Telemetry};
use tracing::{Dispatch, dispatcher, info, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

const THREADS: u64 = 2;
const LINES: u64 = 1_000_000;
const ROUNDS: usize = 5;

/// Lines a second: each round, best first.
pub fn measure() -> Value {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(|a, b| b.total_cmp(a));
    json!({ "lines_per_second": rounds, "threads": THREADS, "lines": THREADS * LINES })
}

fn round() -> f64 {
    let through = Arc::new(AtomicU64::new(0));
    let (layers, telemetry) = Telemetry::builder("bench")
        .log_writer(Counting(Arc::clone(&through)))
        .settings(waiting())
        .layers()
        .expect("telemetry can be set up");
    let dispatch = Dispatch::new(Registry::default().with(layers));
    let begin = now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                dispatcher::with_default(&dispatch, || {
                    let _inside = info_span!("request", method = "POST", route = "/orders", user = 7).entered();
                    for order in 0..LINES {
                        info!(order, amount = 42, currency = "EUR", "order accepted");
                    }
                });
            });
        }
    });
    let report = telemetry.shutdown_blocking(Duration::from_secs(10));
    let seconds = now().saturating_sub(begin).as_secs_f64();
    let counted = report.sink("stdout").expect("lines were written");
    assert_eq!(counted.delivered, THREADS * LINES, "{counted:?}");
    assert_eq!(through.load(Ordering::Relaxed), THREADS * LINES);
    (THREADS * LINES) as f64 / seconds
}

/// Callers wait for room as long as it takes.
fn waiting() -> Settings {
    let mut settings = Settings::default();
    settings.log.stdout.on_full = OnFull::Block;
    settings.log.stdout.block_timeout = Duration::from_secs(60);
    settings
}

/// Counts the lines that come out and throws them away.
struct Counting(Arc<AtomicU64>);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let lines = memchr::memchr_iter(b'\n', bytes).count();
        self.0.fetch_add(lines as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
