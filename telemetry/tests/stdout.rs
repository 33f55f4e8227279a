//! A process's real stdout: closed, on a full disk, a pipe that nobody or somebody slow reads, a file. Each is a process of
//! its own (this binary again), which says on stderr what its telemetry reported.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::Value;
use telemetry::{InitError, Telemetry};

/// Tells the copy of this binary what it is.
const PART: &str = "TELEMETRY_TEST_PART";
/// Where it writes, if it needs a folder.
const FOLDER: &str = "TELEMETRY_TEST_FOLDER";
const LONG: Duration = Duration::from_secs(30);

/// What the other process said: the report's counts of stdout, then what else it told.
struct Told {
    counts: Value,
    more: Value,
    stderr: String,
}

impl Told {
    fn count(&self, name: &str) -> u64 {
        self.counts[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} is not in {}", self.counts))
    }

    fn dropped_by(&self, reason: &str) -> u64 {
        self.counts["dropped_by"][reason].as_u64().unwrap_or(0)
    }

    fn is_exact(&self) -> bool {
        let parts = ["delivered", "rejected", "dropped", "spooled"];
        self.count("emitted") == parts.iter().map(|name| self.count(name)).sum::<u64>()
    }
}

/// Runs a part in another process.
fn run(part: &str, folder: Option<&Path>) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_part", "--nocapture"])
        .env(PART, part)
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(folder) = folder {
        command.env(FOLDER, folder);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = |word: &str| {
        let line = stderr.lines().find_map(|line| line.strip_prefix(word));
        serde_json::from_str(line.unwrap_or_else(|| panic!("{part} said nothing: {stderr}"))).unwrap()
    };
    Told {
        counts: said("counts: "),
        more: said("more: "),
        stderr,
    }
}

/// The other process. As a test of its own it does nothing.
#[test]
fn a_part() {
    let Ok(part) = std::env::var(PART) else { return };
    match part.as_str() {
        "closed" => closed(),
        "full" => full(),
        "stuck" => stuck(),
        "slow" => slow(),
        "flood" => flood(),
        "panics" => panics(),
        "forgotten" => forgotten(),
        "log" => log_lines(),
        other => panic!("{other} is no part"),
    }
}

fn init() -> Telemetry {
    Telemetry::builder("part").from_env().init().unwrap()
}

/// Tells what telemetry reported, and ends without the test harness's last words.
fn tell(telemetry: &Telemetry, more: Value) -> ! {
    let counts = telemetry.counts().sink("stdout").unwrap();
    let mut stderr = std::io::stderr();
    let counts = serde_json::to_string(&counts).unwrap();
    let _ = writeln!(stderr, "\ncounts: {counts}\nmore: {more}");
    #[expect(
        clippy::exit,
        reason = "the harness would write to a stdout that is not its own any more"
    )]
    std::process::exit(0);
}

fn become_stdout(fd: impl Into<OwnedFd>) {
    rustix::stdio::dup2_stdout(fd.into()).unwrap();
}

fn closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    become_stdout(writer);
    drop(reader);
    let telemetry = init();
    (0..1000).for_each(|number| tracing::info!(number, "line"));
    let report = telemetry.shutdown_blocking(LONG);
    tell(&telemetry, Value::from(report.is_exact()));
}

#[test]
fn a_closed_stdout_costs_lines_and_nothing_else() {
    let told = run("closed", None);
    assert!(told.is_exact() && told.more == true, "{}", told.counts);
    assert_eq!((told.count("emitted"), told.dropped_by("write_failed")), (1000, 1000));
}

fn full() {
    become_stdout(rustix::fs::open("/dev/full", OFlags::WRONLY, Mode::empty()).unwrap());
    let telemetry = init();
    (0..1000).for_each(|number| tracing::info!(number, "line"));
    let report = telemetry.shutdown_blocking(LONG);
    tell(&telemetry, Value::from(report.is_exact()));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let told = run("full", None);
    assert!(told.is_exact() && told.more == true, "{}", told.counts);
    assert_eq!((told.count("emitted"), told.dropped_by("write_failed")), (1000, 1000));
}

fn stuck() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    become_stdout(writer);
    let telemetry = init();
    let text = "x".repeat(1000);
    (0..20_000).for_each(|number| tracing::info!(number, text, "line"));
    let began = tokio::time::Instant::now();
    let _ = telemetry.shutdown_blocking(Duration::from_millis(200));
    let waited = began.elapsed();
    tracing::info!("after the end");
    // What the kernel has of it arrived after all; it is no more than what has no answer.
    let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
    rustix::fs::fcntl_setfl(&reader, flags | OFlags::NONBLOCK).unwrap();
    let mut arrived = Vec::new();
    // The writer goes on as there is room: two pipes' worth are more than one batch.
    while arrived.len() < 128 * 1024 {
        let mut part = [0; 4096];
        match reader.read(&mut part) {
            Ok(count) if count > 0 => arrived.extend_from_slice(&part[..count]),
            _ => break,
        }
    }
    let lines = line_feeds(&arrived);
    let more = serde_json::json!({"waited_ms": waited.as_millis() as u64, "lines": lines});
    tell(&telemetry, more);
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_the_service_nor_its_end() {
    let told = run("stuck", None);
    assert!(told.is_exact(), "{}", told.counts);
    // The lines are more than the queue may hold.
    assert!(told.dropped_by("queue_full") > 1000, "{}", told.counts);
    assert!(told.dropped_by("deadline") > 1000, "{}", told.counts);
    assert_eq!(told.dropped_by("closed"), 1);
    assert!(told.more["waited_ms"].as_u64().unwrap() < 3000, "{}", told.more);
    let arrived = told.more["lines"].as_u64().unwrap();
    assert!(
        arrived > 0 && arrived <= told.count("delivered") + told.dropped_by("unanswered"),
        "{}",
        told.more
    );
}

fn slow() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // Somebody else made it non-blocking, as a shell's job may.
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    become_stdout(writer);
    let telemetry = init();
    let reads = std::thread::spawn(move || {
        let mut lines = 0;
        let mut part = [0; 1024];
        while let Ok(count) = reader.read(&mut part) {
            lines += line_feeds(&part[..count]);
            std::thread::yield_now();
            if lines == 5000 {
                break;
            }
        }
        lines
    });
    (0..5000).for_each(|number| tracing::info!(number, "line"));
    let _ = telemetry.shutdown_blocking(LONG);
    let lines = reads.join().unwrap();
    tell(&telemetry, Value::from(lines));
}

#[test]
fn a_pipe_that_does_not_block_and_is_read_slowly_gets_every_line() {
    let told = run("slow", None);
    assert_eq!(
        (told.count("emitted"), told.count("delivered")),
        (5000, 5000),
        "{}",
        told.counts
    );
    assert_eq!(told.more, 5000);
}

/// Lines of the flood: as many as the issue of a whole service wants.
const FLOOD: u64 = 200_000;

fn flood() {
    let file = std::env::var_os(FOLDER).unwrap();
    become_stdout(File::create(Path::new(&file).join("stdout")).unwrap());
    let telemetry = init();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let _span = tracing::info_span!("flood", thread).entered();
                (0..FLOOD / 4).for_each(|number| tracing::info!(number, "line"));
            });
        }
        while telemetry.counts().sink("stdout").unwrap().emitted < FLOOD / 2 {
            std::thread::yield_now();
        }
        // In the middle of it.
        assert!(telemetry.shutdown_blocking(LONG).is_exact());
    });
    tell(&telemetry, Value::Null);
}

#[test]
fn two_hundred_thousand_lines_are_accounted_for_to_the_line_also_while_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let told = run("flood", Some(folder.path()));
    assert!(told.is_exact(), "{}", told.counts);
    let text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
    assert_eq!(text.lines().count() as u64, told.count("delivered"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = lines.filter(|line| line["target"] == "telemetry").count() as u64;
    assert_eq!(told.count("emitted"), FLOOD + own);
    assert!(
        told.count("delivered") > 0 && told.dropped_by("closed") > 0,
        "{}",
        told.counts
    );
}

fn panics() {
    let folder = std::env::var_os(FOLDER).unwrap();
    become_stdout(File::create(Path::new(&folder).join("stdout")).unwrap());
    // The hook that was there before stays in use.
    std::panic::set_hook(Box::new(|_| {
        let _ = writeln!(std::io::stderr(), "the former hook");
    }));
    let telemetry = init();
    assert!(matches!(
        Telemetry::builder("again").init(),
        Err(InitError::AlreadyInitialised)
    ));
    let panic = std::thread::Builder::new().name("worker".to_owned()).spawn(|| {
        let _span = tracing::info_span!("request", order = 7).entered();
        panic!("{}", "é".repeat(5000));
    });
    assert!(panic.unwrap().join().is_err());
    // Somebody's Debug panics while it is logged.
    struct Bad;
    impl std::fmt::Debug for Bad {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("in a Debug")
        }
    }
    let bad = std::thread::spawn(|| tracing::info!(bad = ?Bad, "never written"));
    assert!(bad.join().is_err());
    let bad = std::thread::spawn(|| tracing::info_span!("span", bad = ?Bad).in_scope(|| ()));
    assert!(bad.join().is_err());
    tracing::info!("still here");
    let _ = telemetry.shutdown_blocking(LONG);
    let total = telemetry.metrics().encode();
    let total = total.lines().find_map(|line| line.strip_prefix("panics_total "));
    tell(&telemetry, Value::from(total));
}

#[test]
fn panics_are_counted_and_told_with_their_request() {
    let folder = tempfile::tempdir().unwrap();
    let told = run("panics", Some(folder.path()));
    assert_eq!(told.more, "3");
    assert_eq!(told.stderr.matches("the former hook").count(), 3, "{}", told.stderr);
    let text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let panics: Vec<&Value> = lines.iter().filter(|line| line["target"] == "panic").collect();
    assert_eq!(panics.len(), 3, "{text}");
    let first = panics[0];
    assert_eq!(
        (&first["level"], &first["thread"], &first["order"]),
        (&"ERROR".into(), &"worker".into(), &7.into())
    );
    assert_eq!(first["payload"].as_str().unwrap().len(), 4 * 1024);
    assert!(
        first["location"].as_str().unwrap().contains("tests/stdout.rs:"),
        "{first}"
    );
    assert_eq!(first["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(panics[1]["payload"], "in a Debug");
    assert_eq!(lines.last().unwrap()["message"], "still here");
}

fn forgotten() {
    let folder = std::env::var_os(FOLDER).unwrap();
    become_stdout(File::create(Path::new(&folder).join("stdout")).unwrap());
    let telemetry = init();
    tracing::info!("last words");
    // `main` ends by a panic and nobody shuts down.
    let ends = std::thread::spawn(move || {
        let _held = telemetry;
        panic!("the end");
    });
    assert!(ends.join().is_err());
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "\ncounts: {{}}\nmore: null");
    #[expect(
        clippy::exit,
        reason = "the harness would write to a stdout that is not its own any more"
    )]
    std::process::exit(0);
}

#[test]
fn what_was_logged_before_a_panic_ended_everything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    run("forgotten", Some(folder.path()));
    let text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
    for wanted in ["\"last words\"", "\"payload\":\"the end\"", "without a shutdown"] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}

/// Logs while it is being logged.
struct Chatty;

impl std::fmt::Debug for Chatty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        tracing::info!(inner = 1, "inside");
        f.write_str("chatty")
    }
}

fn log_lines() {
    let folder = std::env::var_os(FOLDER).unwrap();
    become_stdout(File::create(Path::new(&folder).join("stdout")).unwrap());
    let telemetry = init();
    let _span = tracing::info_span!("request", order = 7).entered();
    log::warn!(target: "old::library", "careful: {}", 1);
    log::debug!("not wanted");
    tracing::info!(before = 0, chatty = ?Chatty, after = 2, "outside");
    let _ = telemetry.shutdown_blocking(LONG);
    tell(&telemetry, Value::Null);
}

#[test]
fn lines_of_the_crate_log_are_lines_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    run("log", Some(folder.path()));
    let text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let line = &lines[0];
    assert_eq!(
        (&line["target"], &line["level"], &line["message"], &line["order"]),
        (&"old::library".into(), &"WARN".into(), &"careful: 1".into(), &7.into())
    );
    assert!(
        line.as_object().unwrap().keys().all(|key| !key.starts_with("log.")),
        "{line}"
    );
}

fn line_feeds(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}
