//! One real Loki for all tests of this binary, with a tenant for each.

use std::net::SocketAddr;
use std::time::Duration;

use peers::{Server, http, servers};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Longer lines are refused by the Loki of these tests.
pub const LONGEST_LINE: usize = 512;

/// A tenant of a Loki.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub loki: SocketAddr,
    pub name: String,
}

/// The Loki that all tests share. It refuses long lines and nothing else that these tests do on purpose.
pub fn recipe() -> servers::Loki {
    servers::Loki::default()
        .with_tenants()
        .limit("max_line_size", "512B")
        .limit("ingestion_rate_mb", "1000")
        .limit("ingestion_burst_size_mb", "1000")
        .limit("per_stream_rate_limit", "1GB")
        .limit("per_stream_rate_limit_burst", "1GB")
}

/// A tenant named as the test, or `None` where there is no Loki.
pub async fn tenant(test: &str) -> Option<Tenant> {
    // The server is ended with the process; each test has a runtime of its own, and only the address is shared.
    static LOKI: OnceCell<Option<Server>> = OnceCell::const_new();
    let server = LOKI.get_or_init(|| Server::start(recipe(), test)).await;
    let Some(server) = server else {
        peers::skip(test, "there is no Loki");
        return None;
    };
    Some(Tenant {
        loki: server.address("http"),
        name: test.to_owned(),
    })
}

impl Tenant {
    /// What Loki answers to a query for the value of one number.
    async fn number(&self, query: &str) -> u64 {
        let end = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(60);
        let path = format!(
            "/loki/api/v1/query?query={}&time={}",
            http::encode(query),
            end.as_nanos()
        );
        let headers = [("X-Scope-OrgID", self.name.as_str())];
        let answer = http::send(self.loki, "GET", &path, &headers, "").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let json = answer.json();
        let value = json["data"]["result"][0]["value"][1].as_str().unwrap_or("0");
        value.parse::<f64>().unwrap() as u64
    }

    /// Lines that Loki has stored.
    pub async fn stored(&self) -> u64 {
        self.stored_in("{test=~\".+\"}").await
    }

    /// Lines that Loki has stored in the streams that `selector` names.
    pub async fn stored_in(&self, selector: &str) -> u64 {
        self.number(&format!("sum(count_over_time({selector}[3h]))")).await
    }

    /// Waits until Loki has stored so many lines, for those who have nobody to tell them.
    pub async fn stored_at_least(&self, count: u64, limit: Duration) -> u64 {
        let until = Instant::now() + limit;
        loop {
            let stored = self.stored().await;
            if stored >= count || Instant::now() > until {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Up to 5000 lines with their labels, oldest first.
    pub async fn lines(&self) -> Vec<(serde_json::Value, String)> {
        self.lines_of("{test=~\".+\"}").await
    }

    /// The same for the streams that `selector` names.
    pub async fn lines_of(&self, selector: &str) -> Vec<(serde_json::Value, String)> {
        let query = http::encode(selector);
        let end = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(60);
        let start = end.saturating_sub(Duration::from_secs(3 * 3600));
        let path = format!(
            "/loki/api/v1/query_range?query={query}&limit=5000&direction=forward&start={}&end={}",
            start.as_nanos(),
            end.as_nanos()
        );
        let headers = [("X-Scope-OrgID", self.name.as_str())];
        let answer = http::send(self.loki, "GET", &path, &headers, "").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut lines = Vec::new();
        for stream in answer.json()["data"]["result"].as_array().unwrap() {
            for value in stream["values"].as_array().unwrap() {
                let time: u64 = value[0].as_str().unwrap().parse().unwrap();
                lines.push((time, stream["stream"].clone(), value[1].as_str().unwrap().to_owned()));
            }
        }
        lines.sort_by_key(|(time, ..)| *time);
        lines.into_iter().map(|(_, labels, line)| (labels, line)).collect()
    }
}
