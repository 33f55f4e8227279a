//! A board of a real Prometheus that scrapes itself: what is asked is understood, and what comes back is seen.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashboards::draw::data::{Data as _, DataError, Fixture, Prometheus, Span};
use dashboards::draw::{Board, Settings, draw, record};
use endpoint::Access;
use peers::{Server, servers};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{judged, provider};

fn board() -> Board {
    let target = |expr: &str| json!({ "refId": "A", "expr": expr, "legendFormat": "{{handler}}" });
    let panel = |id: u32, kind: &str, title: &str, expr: &str| {
        json!({
            "id": id, "type": kind, "title": title,
            "gridPos": { "x": (id - 1) % 2 * 12, "y": (id - 1) / 2 * 8, "w": 12, "h": 8 },
            "targets": [target(expr)],
        })
    };
    let board = json!({
        "title": "Prometheus of $job",
        "templating": { "list": [
            { "name": "job", "type": "query", "query": "label_values(up, job)", "includeAll": true, "multi": true },
        ]},
        "panels": [
            panel(1, "timeseries", "Requests", r#"sum by (handler) (rate(prometheus_http_requests_total{job=~"$job"}[$__rate_interval]))"#),
            panel(2, "stat", "Up", r#"up{job=~"$job"}"#),
            panel(3, "heatmap", "Sizes", "sum by (le) (prometheus_http_response_size_bytes_bucket)"),
            panel(4, "timeseries", "Refused", "sum(rate("),
        ],
    });
    Board::read(&board).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a real Prometheus goes by the real clock")]
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
        .floor()
}

#[tokio::test]
async fn a_real_prometheus_is_drawn_and_a_recording_of_it_looks_the_same() {
    let test = "a_real_prometheus_is_drawn_and_a_recording_of_it_looks_the_same";
    provider();
    // It scrapes itself, as soon as it is known where it is.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yaml");
    std::fs::write(&file, "global: {scrape_interval: 1s}\n").unwrap();
    let Some(server) = Server::start(servers::Prometheus::default().configuration(&file), test).await else {
        return;
    };
    let address = server.address("http").to_string();
    let own = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: itself, static_configs: [{{targets: [\"{address}\"]}}]}}]\n"
    );
    std::fs::write(&file, own).unwrap();
    let client = reqwest::Client::new();
    let reload = client.post(format!("http://{address}/-/reload")).send().await.unwrap();
    assert!(reload.status().is_success());
    let data = Prometheus::new(
        &format!("http://{address}"),
        Access::Open,
        Duration::from_secs(10),
        None,
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let span = Span {
            from: now() - 60.0,
            to: now(),
            step: 1.0,
        };
        let series = data
            .range("rate(prometheus_http_requests_total[4s])", span)
            .await
            .unwrap();
        if series.iter().any(|series| series.points.len() > 5) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was scraped");
        sleep(Duration::from_millis(200)).await;
    }
    let end = now();
    let mut settings = Settings::new(end - 30.0, end);
    settings.scrape = 1.0;
    let told = std::sync::Mutex::new(Vec::new());
    let live = draw(&board(), &data, &settings, &|progress| {
        told.lock().unwrap().push(progress);
    })
    .await;
    let words = judged(live.svg.as_str());
    for expected in ["Prometheus of itself", "1", "/-/reload", "+Inf"] {
        assert!(
            words.iter().any(|word| word.contains(expected)),
            "{expected} is not in {words:?}"
        );
    }
    assert!(
        words
            .iter()
            .any(|word| word.contains("req") || word.starts_with("last ")),
        "{words:?}"
    );
    // The refused question is told with the words of Prometheus.
    assert!(words.iter().any(|word| word.contains("parse error")), "{words:?}");
    assert_eq!(live.failures.len(), 1);
    let told = told.into_inner().unwrap();
    assert_eq!(told.last().map(|last| (last.answered, last.questions)), Some((4, 4)));

    let recording = record(&[board()], &data, &settings, &|_| {}).await;
    let again = Fixture::read(&recording.write()).unwrap();
    assert_eq!(again.span(), (end - 30.0, end));
    let recorded = draw(&board(), &again, &settings, &|_| {}).await;
    // Of the last panel a recording knows only that nobody has answered.
    let told = |words: Vec<String>| {
        words
            .into_iter()
            .take_while(|word| word != "Refused")
            .collect::<Vec<_>>()
    };
    assert_eq!(told(judged(recorded.svg.as_str())), told(words));
    std::fs::write(
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("live.svg"),
        live.svg.as_str(),
    )
    .unwrap();

    let odd = data
        .values(
            "le\"} or vector(1) #",
            None,
            Span {
                from: 0.0,
                to: 1.0,
                step: 1.0,
            },
        )
        .await;
    assert!(matches!(odd, Err(DataError::Refused(_))));
}
