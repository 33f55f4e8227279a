//! Lines delivered to a real Loki for a second of the sending process's processor: at a pace at which neither client need
//! lose any, counted by a query when both are done.

use std::io::sink;
use std::time::Duration;

use peers::{Server, http, servers};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use telemetry::Telemetry;
use tokio::runtime::Runtime;
use tracing::{Dispatch, dispatcher, info, info_span};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry};

const LINES: u64 = 100_000;
/// So many lines, then a pause: 40,000 lines a second.
const TOGETHER: u64 = 200;
const PAUSE: Duration = Duration::from_millis(5);
const LAST: Duration = Duration::from_secs(30);

/// What each client delivered, and what it cost; nothing where there is no Loki.
pub fn measure() -> Value {
    let runtime = runtime();
    let recipe = ["ingestion_rate_mb", "ingestion_burst_size_mb"]
        .into_iter()
        .fold(servers::Loki::default(), |loki, key| loki.limit(key, "1000"))
        .limit("per_stream_rate_limit", "1GB")
        .limit("per_stream_rate_limit_burst", "1GB");
    let Some(loki) = runtime.block_on(Server::start(recipe, "xtask bench telemetry")) else {
        return json!([]);
    };
    let url = loki.url("http");
    let found = |service: &str| runtime.block_on(stored(&loki, service));
    let ours = ours(&url);
    let theirs = theirs(&url);
    json!([
        { "who": "telemetry", "emitted": LINES, "delivered": found("bench-ours"), "cpu_seconds": ours },
        { "who": "tracing-loki", "emitted": LINES, "delivered": found("bench-theirs"), "cpu_seconds": theirs },
    ])
}

fn ours(url: &str) -> f64 {
    let begin = processor_time();
    let (layers, telemetry) = Telemetry::builder("bench-ours")
        .log_writer(sink())
        .loki(url)
        .layers()
        .expect("telemetry can be set up");
    emit(&Dispatch::new(Registry::default().with(layers)));
    let report = telemetry.shutdown_blocking(LAST);
    assert!(report.is_lossless(), "{report:?}");
    (processor_time().saturating_sub(begin)).as_secs_f64()
}

fn theirs(url: &str) -> f64 {
    let begin = processor_time();
    let runtime = runtime();
    let (layer, controller, task) = tracing_loki::builder()
        .label("service", "bench-theirs")
        .and_then(|builder| builder.build_controller_url(url.parse().expect("a URL")))
        .expect("the layer can be made");
    let task = runtime.spawn(task);
    emit(&Dispatch::new(
        Registry::default().with(EnvFilter::new("info")).with(layer),
    ));
    runtime.block_on(async {
        controller.shutdown().await;
        let _ = tokio::time::timeout(LAST, task).await;
    });
    (processor_time().saturating_sub(begin)).as_secs_f64()
}

fn emit(dispatch: &Dispatch) {
    let runtime = runtime();
    dispatcher::with_default(dispatch, || {
        let _inside = info_span!("request", method = "POST", route = "/orders", user = 7).entered();
        for chunk in 0..LINES / TOGETHER {
            for line in 0..TOGETHER {
                info!(
                    order = chunk * TOGETHER + line,
                    amount = 42,
                    currency = "EUR",
                    "order accepted"
                );
            }
            runtime.block_on(async { tokio::time::sleep(PAUSE).await });
        }
    });
}

/// How many lines of `service` Loki has, once it has stopped growing.
async fn stored(loki: &Server, service: &str) -> u64 {
    let query = format!("sum(count_over_time({{service=\"{service}\"}}[1h]))");
    let path = format!("/loki/api/v1/query?query={}", http::encode(&query));
    let mut last = None;
    loop {
        let answer = http::get(loki.address("http"), &path)
            .await
            .expect("Loki answers")
            .json();
        let count = answer["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|count| count.parse().ok());
        if last == Some(count) {
            return count.unwrap_or(0);
        }
        last = Some(count);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime can be built")
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
