//! A program that makes spans: this test binary again, since telemetry is set up once in a process. It is told by
//! variables what to do and tells its counts at the end.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use telemetry::{DropReason, Telemetry};

/// How many spans; that it is set says that this process is the emitter.
const SPANS: &str = "TELEMETRY_TEST_SPANS";
/// Milliseconds for the shutdown.
const LIMIT: &str = "TELEMETRY_TEST_LIMIT";
/// Milliseconds over which the spans are spread.
const OVER: &str = "TELEMETRY_TEST_OVER";

/// The emitter's end: to be called by a test named `emit`, which is not one by itself.
#[expect(clippy::print_stderr, reason = "the one that started it reads its counts there")]
pub fn emit() {
    let Some(spans) = number(SPANS) else { return };
    let limit = Duration::from_millis(number(LIMIT).unwrap());
    let over = number(OVER).unwrap_or(0);
    // A current-thread runtime is where other exporters lose everything.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let telemetry = Telemetry::builder("emitter").from_env().filter("info").init().unwrap();
        assert!(
            Telemetry::builder("again").init().is_err(),
            "a second set-up is an error, not a panic"
        );
        for number in 0..spans {
            tracing::info_span!("work", number).in_scope(|| tracing::info!("working"));
            if over > 0 && number % 10 == 9 {
                tokio::time::sleep(Duration::from_millis(over * 10 / spans)).await;
            }
        }
        let began = tokio::time::Instant::now();
        let report = telemetry.shutdown(limit).await;
        let took = began.elapsed().as_millis() as u64;
        let exact = report
            .sinks
            .iter()
            .all(|(_, counts)| counts.is_exact() || counts.unknown > 0);
        assert!(exact, "{report:?}");
        assert_eq!(telemetry.shutdown(limit).await, report, "later calls say the same");
        let stdout = report.sink("stdout").unwrap();
        // Besides those of the work, lines about the collector; the last of them may come when the log is closed.
        let too_late = stdout.dropped_because(DropReason::Closed);
        assert!(
            stdout.delivered >= spans && stdout.delivered + too_late == stdout.emitted,
            "the log goes on: {stdout:?}"
        );
        eprintln!("counts: {}", serde_json::json!({ "report": report, "took": took }));
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What an emitter is to do.
pub struct Emitter {
    spans: u64,
    sink: &'static str,
    env: Vec<(String, String)>,
}

/// What became of its spans.
#[allow(dead_code, reason = "not every binary uses all of it")]
#[derive(Debug)]
pub struct Counts {
    pub delivered: u64,
    pub rejected: u64,
    pub dropped: u64,
    pub unknown: u64,
    pub rejected_by: HashMap<String, u64>,
    pub dropped_by: HashMap<String, u64>,
    /// Lines that tell of the collector.
    pub alarms: Vec<String>,
    /// How long the shutdown took.
    pub took: Duration,
}

impl Counts {
    pub fn lost(&self) -> u64 {
        self.rejected + self.dropped
    }
}

#[allow(dead_code, reason = "not every binary uses all of it")]
impl Emitter {
    pub fn spans(spans: u64) -> Self {
        Self {
            spans,
            sink: "otlp_traces",
            env: Vec::new(),
        }
        .limit(Duration::from_secs(10))
    }

    /// Time for the shutdown. Default 10 s.
    pub fn limit(self, limit: Duration) -> Self {
        self.env(LIMIT, limit.as_millis().to_string())
    }

    /// Spreads the spans over a time.
    pub fn over(self, time: Duration) -> Self {
        self.env(OVER, time.as_millis().to_string())
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Whose counts are told. Default `otlp_traces`.
    pub fn sink(mut self, name: &'static str) -> Self {
        self.sink = name;
        self
    }

    /// Runs it to its end, with a collector at `endpoint`.
    pub async fn run(self, endpoint: &str) -> Counts {
        self.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).run_alone().await
    }

    /// The same for a task.
    pub async fn run_owned(self, endpoint: String) -> Counts {
        self.run(&endpoint).await
    }

    /// Runs it to its end, as it is told alone.
    pub async fn run_alone(self) -> Counts {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "emit", "--nocapture"])
            .env(SPANS, self.spans.to_string())
            .envs(self.env)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = stderr.lines().find_map(|line| line.strip_prefix("counts: "));
        let told: serde_json::Value = serde_json::from_str(told.expect("the emitter should tell its counts")).unwrap();
        let counts = &told["report"]["sinks"][self.sink];
        let number = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("no {key} in {told}"));
        let by = |key: &str| -> HashMap<String, u64> { serde_json::from_value(counts[key].clone()).unwrap() };
        assert_eq!(number("emitted"), self.spans);
        assert_eq!(number("pending"), 0);
        Counts {
            delivered: number("delivered"),
            rejected: number("rejected"),
            dropped: number("dropped"),
            unknown: number("unknown"),
            rejected_by: by("rejected_by"),
            dropped_by: by("dropped_by"),
            took: Duration::from_millis(told["took"].as_u64().unwrap()),
            alarms: stdout
                .lines()
                .filter(|line| line.contains("the collector"))
                .map(str::to_owned)
                .collect(),
        }
    }
}
