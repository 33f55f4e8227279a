//! The end of telemetry, and writers that are slow, hang, fail or write in parts: every line is accounted for, and nobody
//! waits longer than said.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::io::{Error, ErrorKind, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use telemetry::{DropReason, Report, SinkCounts, Telemetry, TelemetryBuilder};
use tokio::time::Instant;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

const LONG: Duration = Duration::from_secs(30);

/// A writer that does with each write what it is told; keeps what it took.
struct Told {
    answers: Receiver<Answer>,
    taken: Arc<Mutex<Vec<u8>>>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Take,
    TakePart(usize),
    Fail(ErrorKind),
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Without an answer the write hangs, and it fails when the test is over.
        let count = match self.answers.recv().map_err(|_| Error::from(ErrorKind::BrokenPipe))? {
            Answer::Take => bytes.len(),
            Answer::TakePart(count) => count.min(bytes.len()),
            Answer::Fail(kind) => return Err(kind.into()),
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Set {
    telemetry: Telemetry,
    tell: Sender<Answer>,
    taken: Arc<Mutex<Vec<u8>>>,
    _default: tracing::subscriber::DefaultGuard,
}

impl Set {
    fn up(change: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder) -> Self {
        let (tell, answers) = channel();
        let taken = Arc::default();
        let writer = Told {
            answers,
            taken: Arc::clone(&taken),
        };
        let builder = change(Telemetry::builder("shop").log_writer(writer));
        let (layers, telemetry) = builder.layers().unwrap();
        let subscriber = registry().with(layers);
        Self {
            telemetry,
            tell,
            taken,
            _default: tracing::subscriber::set_default(subscriber),
        }
    }

    fn stdout(&self) -> SinkCounts {
        self.telemetry.counts().sink("stdout").unwrap()
    }

    /// Waits until the sink's counts are the wanted ones.
    fn until(&self, wanted: impl Fn(SinkCounts) -> bool) {
        let deadline = Instant::now() + LONG;
        while !wanted(self.stdout()) {
            assert!(Instant::now() < deadline, "{:?}", self.stdout());
            std::thread::yield_now();
        }
    }

    /// Whole lines that the writer took, parsed.
    fn lines(&self) -> Vec<serde_json::Value> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::str::from_utf8(&taken).unwrap();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        // Of a line that was torn, the rest never came.
        whole
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

fn stdout(report: &Report) -> SinkCounts {
    report.sink("stdout").unwrap()
}

#[test]
fn a_writer_that_hangs_holds_up_neither_callers_nor_the_end() {
    let set = Set::up(|builder| builder);
    let began = Instant::now();
    for number in 0..500 {
        tracing::info!(number, "line");
    }
    let report = set.telemetry.shutdown_blocking(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let counts = stdout(&report);
    assert!(counts.is_exact(), "{report:?}");
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (500, 0, 500));
    let in_write = counts.dropped_because(DropReason::Unanswered);
    assert!(in_write > 0, "the batch in the write may have arrived: {counts:?}");
    assert_eq!(counts.dropped_because(DropReason::Deadline), 500 - in_write);
    // The write returns after all: what was reported stays.
    for _ in 0..10 {
        let _ = set.tell.send(Answer::Take);
    }
    tracing::info!("too late");
    assert_eq!(
        set.telemetry.shutdown_blocking(LONG),
        report,
        "the same report for everybody"
    );
    assert_eq!(set.stdout().dropped_because(DropReason::Closed), 1);
    assert!(set.telemetry.counts().is_exact());
}

#[test]
fn lines_that_were_written_in_part_are_not_delivered_and_tear_no_other() {
    let set = Set::up(|builder| builder);
    tracing::info!("first");
    set.until(|counts| counts.emitted == 1);
    // Ten bytes of it, then the disk is full.
    set.tell.send(Answer::TakePart(10)).unwrap();
    set.tell.send(Answer::Fail(ErrorKind::StorageFull)).unwrap();
    set.until(|counts| counts.dropped_because(DropReason::WriteFailed) == 1);
    tracing::info!("second");
    for _ in 0..4 {
        set.tell.send(Answer::Take).unwrap();
    }
    let counts = stdout(&set.telemetry.shutdown_blocking(LONG));
    assert_eq!(
        (counts.emitted, counts.delivered, counts.dropped),
        (3, 2, 1),
        "with the line that tells of it"
    );
    let lines = set.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let told = lines[0]["message"].as_str().unwrap();
    assert!(told.starts_with("lost 1 lines since 20"), "{told}");
    assert_eq!((&lines[0]["level"], &lines[0]["lost"]), (&"WARN".into(), &"1".into()));
    assert_eq!(lines[1]["message"], "second");
}

#[test]
fn a_reader_that_went_away_costs_lines_and_nothing_else() {
    let set = Set::up(|builder| builder);
    for number in 0..5 {
        tracing::info!(number, "line");
        set.tell.send(Answer::Fail(ErrorKind::BrokenPipe)).unwrap();
        set.until(|counts| counts.dropped == number + 1);
    }
    let counts = stdout(&set.telemetry.shutdown_blocking(LONG));
    assert_eq!(counts.dropped_because(DropReason::WriteFailed), 5);
    assert!(counts.is_exact(), "{counts:?}");
}

#[test]
fn interrupted_and_busy_writes_are_tried_again() {
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    for answer in [
        Answer::Fail(ErrorKind::Interrupted),
        Answer::TakePart(3),
        Answer::Fail(ErrorKind::WouldBlock),
        Answer::Take,
    ] {
        set.tell.send(answer).unwrap();
    }
    assert!(set.telemetry.shutdown_blocking(LONG).is_lossless());
    assert_eq!(set.lines().len(), 1);
}

#[test]
fn a_full_queue_keeps_warnings_and_tells_what_it_lost() {
    let set = Set::up(|builder| builder.log_queue_bytes(256 * 1024));
    // The first batch hangs in the write: the first line, or all that the queue held when its writer came to it. So there
    // are more lines than two queues hold.
    tracing::info!("first");
    set.until(|counts| counts.emitted == 1);
    for number in 0..6000 {
        tracing::info!(number, "ordinary");
        if number % 100 == 0 {
            tracing::error!(number, "important");
        }
    }
    let dropped = set.stdout().dropped_because(DropReason::QueueFull);
    assert!(dropped > 100, "{dropped}");
    // Each write takes a batch and a half.
    for _ in 0..1000 {
        let _ = set.tell.send(Answer::Take);
    }
    let report = set.telemetry.shutdown_blocking(LONG);
    let counts = stdout(&report);
    assert!(counts.is_exact(), "{counts:?}");
    assert_eq!(counts.dropped, dropped);
    let lines = set.lines();
    assert_eq!(lines.len() as u64, counts.delivered);
    let important = lines.iter().filter(|line| line["message"] == "important").count();
    assert_eq!(important, 60, "errors stay");
    let told: Vec<_> = lines.iter().filter(|line| line["target"] == "telemetry").collect();
    // Twice when the writer came to the first batch after lines of it had been lost.
    assert!((1..=2).contains(&told.len()), "{told:?}");
    let lost = |line: &&serde_json::Value| line["lost"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(told.iter().map(lost).sum::<u64>(), dropped, "{told:?}");
    assert_eq!(counts.emitted, 1 + 6000 + 60 + told.len() as u64);
}

#[test]
fn lines_are_counted_to_the_last_while_threads_race_with_the_end() {
    for seed in 0..6_u64 {
        println!("seed {seed}");
        let set = Set::up(|builder| builder.log_queue_bytes(256 * 1024));
        for _ in 0..100_000 {
            set.tell.send(Answer::Take).unwrap();
        }
        let dispatch = tracing::dispatcher::get_default(tracing::Dispatch::clone);
        let report = std::thread::scope(|scope| {
            for thread in 0..4 {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        (0..5000).for_each(|number| tracing::info!(thread, number, "line"));
                    });
                });
            }
            set.until(|counts| counts.emitted >= seed * 4000);
            set.telemetry.shutdown_blocking(Duration::from_millis(seed * 3))
        });
        assert!(report.is_exact(), "seed {seed}: {report:?}");
        let counts = set.stdout();
        assert!(counts.is_exact(), "seed {seed}: {counts:?}");
        let lines = set.lines();
        let own = lines.iter().filter(|line| line["target"] == "telemetry").count() as u64;
        // A notice may have been in the last batch, whose answer came too late.
        assert!(
            (20_000..=20_000 + own + 1).contains(&counts.emitted),
            "seed {seed}: {counts:?}, {own}"
        );
        let unanswered = counts.dropped_because(DropReason::Unanswered);
        let arrived = lines.len() as u64;
        assert!(
            (counts.delivered..=counts.delivered + unanswered).contains(&arrived),
            "seed {seed}: {arrived} arrived of {counts:?}"
        );
    }
}

#[test]
fn the_end_works_on_a_current_thread_runtime_that_does_nothing_else() {
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    set.tell.send(Answer::Take).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(set.telemetry.shutdown(LONG));
    assert!(report.is_lossless(), "{report:?}");
    assert_eq!(runtime.block_on(set.telemetry.close()), report);
}

#[test]
fn many_who_shut_down_at_once_get_one_report() {
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let ends: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| set.telemetry.shutdown_blocking(Duration::from_millis(50))))
            .collect();
        ends.into_iter().map(|end| end.join().unwrap()).collect()
    });
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "{reports:?}");
    assert_eq!(stdout(&reports[0]).dropped, 1);
}

#[test]
fn the_last_handle_waits_a_moment_and_says_that_nobody_shut_down() {
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    for _ in 0..3 {
        set.tell.send(Answer::Take).unwrap();
    }
    let (taken, counted) = (Arc::clone(&set.taken), set.telemetry.clone());
    drop(counted);
    let Set { telemetry, tell, .. } = set;
    drop(telemetry);
    let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("\"line\"") && text.contains("dropped without a shutdown"),
        "{text}"
    );
    drop(tell);
    // And when nobody reads, it does not wait for ever.
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    let Set { telemetry, tell, .. } = set;
    let began = Instant::now();
    drop(telemetry);
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    drop(tell);
}

#[test]
fn a_report_reads_as_json() {
    let set = Set::up(|builder| builder);
    tracing::info!("line");
    let report = set.telemetry.shutdown_blocking(Duration::from_millis(20));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], "opsctl.telemetry/v1");
    let counts = &json["sinks"]["stdout"];
    assert_eq!(
        (&counts["emitted"], &counts["dropped"], &counts["pending"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert_eq!(counts["dropped_by"], serde_json::json!({"unanswered": 1}));
}
