//! The whole of a program's telemetry with Loki in it: from its variables to its report.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use telemetry::Telemetry;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::gate::{Fault, Gate};
use crate::real;

const LIMIT: Duration = Duration::from_secs(10);

/// What stands for stdout.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

fn start(gate: &Gate, tenant: &str, more: &[(&str, &str)]) -> (Telemetry, Dispatch, Out) {
    let out = Out::default();
    let url = gate.url();
    let lookup = |name: &str| match name {
        "LOKI_URL" => Some(url.as_str().into()),
        "LOKI_TENANT_ID" => Some(tenant.into()),
        "APP_ENV" => Some("test".into()),
        _ => more
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into()),
    };
    let (layers, telemetry) = Telemetry::builder("shop")
        .log_writer(out.clone())
        .read_env(lookup)
        .layers()
        .unwrap();
    (
        telemetry,
        Dispatch::new(tracing_subscriber::registry().with(layers)),
        out,
    )
}

/// Lines of a request are found by its trace, and are those of stdout to the byte.
#[tokio::test]
async fn lines_are_found_by_their_trace() {
    let Some(tenant) = real::tenant("lines_are_found_by_their_trace").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let (telemetry, dispatch, out) = start(&gate, &tenant.name, &[]);
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info!("outside");
        let span = tracing::info_span!("request");
        let _inside = span.enter();
        tracing::info!(order = 7, "first");
        tracing::error!("second");
    });
    let report = telemetry.shutdown(LIMIT).await;
    let counts = report.sink("loki").unwrap();
    assert_eq!((counts.emitted, counts.delivered), (3, 3), "{report:?}");
    let line: serde_json::Value = serde_json::from_str(&out.lines()[1]).unwrap();
    let trace = line["trace_id"].as_str().unwrap();
    let streams = "{service=\"shop\", env=\"test\"}";
    assert_eq!(tenant.stored_in(streams).await, 3);
    assert_eq!(tenant.stored_in(&format!("{streams} |= `{trace}`")).await, 2);
    let found: Vec<String> = tenant
        .lines_of(streams)
        .await
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(found, out.lines());
}

/// A Loki that lets nobody in is told of on stdout, once, and not to itself.
#[tokio::test]
async fn an_alarm_goes_to_stdout_alone() {
    let Some(tenant) = real::tenant("an_alarm_goes_to_stdout_alone").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::Status(401, None, "who are you"));
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let variables = [("LOKI_SPOOL_DIR", spool.to_str().unwrap())];
    let (telemetry, dispatch, out) = start(&gate, &tenant.name, &variables);
    tracing::dispatcher::with_default(&dispatch, || tracing::info!("kept"));
    let began = tokio::time::Instant::now();
    while out.lines().len() < 2 {
        assert!(began.elapsed() < LIMIT, "{:?}", out.lines());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let counts = telemetry.shutdown(LIMIT).await.sink("loki").unwrap();
    assert_eq!((counts.emitted, counts.spooled), (1, 1), "{counts:?}");
    assert!(began.elapsed() < LIMIT, "what is on disk waits for nobody");
    let alarms: Vec<String> = out.lines().into_iter().filter(|line| line.contains("401")).collect();
    assert_eq!(alarms.len(), 1, "{:?}", out.lines());
    assert!(
        alarms[0].contains("\"level\":\"ERROR\"") && alarms[0].contains("who are you"),
        "{alarms:?}"
    );

    gate.set(Fault::Pass);
    let (telemetry, _, _) = start(&gate, &tenant.name, &variables);
    let counts = telemetry.shutdown(LIMIT).await.sink("loki").unwrap();
    assert_eq!((counts.recovered, counts.delivered), (1, 1), "{counts:?}");
    assert_eq!(tenant.stored_in("{service=\"shop\"}").await, 1);
}

/// The other client, chosen by a variable: it sends, and the report says that it knows nothing.
#[cfg(feature = "tracing-loki")]
#[tokio::test]
async fn the_report_of_the_other_client_says_unknown() {
    let Some(tenant) = real::tenant("the_report_of_the_other_client").await else {
        return;
    };
    let mut gate = Gate::open(tenant.loki).await;
    let (telemetry, dispatch, out) = start(&gate, &tenant.name, &[("LOKI_CLIENT", "tracing-loki")]);
    tracing::dispatcher::with_default(&dispatch, || tracing::info!("sent"));
    let began = tokio::time::Instant::now();
    while tenant.stored_in("{service=\"shop\"}").await == 0 {
        assert!(began.elapsed() < LIMIT, "it sends at once");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.stop().await;
    tracing::dispatcher::with_default(&dispatch, || tracing::info!("lost"));
    let report = telemetry.shutdown(LIMIT).await;
    let counts = report.sink("loki").unwrap();
    assert_eq!(
        (counts.emitted, counts.unknown, counts.delivered),
        (2, 2, 0),
        "{counts:?}"
    );
    assert!(!report.is_exact() && !report.is_lossless());
    assert_eq!(out.lines().len(), 2, "stdout has both");
    assert_eq!(tenant.stored_in("{service=\"shop\"}").await, 1);
}
