//! A Prometheus that is asked about texts, and ours beside it.

use std::{io, net::SocketAddr};

use peers::{Place, Port, Program, Ready, Recipe, Server, http};
use promql::{Dialect, Query};
use serde_json::Value;

use crate::{corpus::Expression, tree};

/// All feature flags that concern the language.
const FEATURES: &str = "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers";
/// Differences that are shown before a test fails.
const SHOWN: usize = 40;

/// A Prometheus with every feature of the language.
struct WithFeatures;

impl Recipe for WithFeatures {
    fn peer(&self) -> &'static str {
        "prometheus"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("http")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let config = place.write("prometheus.yaml", "global: {}\n")?;
        let program = peers::Peer::named("prometheus").and_then(peers::Peer::locate);
        let program = Program::new(program.ok_or(io::ErrorKind::NotFound)?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", place.folder().join("data").display()))
            .arg(format!("--web.listen-address={}", place.address("http")))
            .arg(format!("--enable-feature={FEATURES}"))
            .arg("--log.level=warn");
        Ok(vec![program])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "http",
            path: "/-/ready",
        }
    }
}

pub struct Judge {
    server: Server,
}

impl Judge {
    pub async fn start(test: &str) -> Option<Self> {
        let server = Server::start(WithFeatures, test).await?;
        Some(Self { server })
    }

    /// Panics with the differences, where there are any.
    pub async fn hold(&self, expressions: &[Expression]) {
        let mut differences = Vec::new();
        for expression in expressions {
            if let Err(difference) = self.compare(&expression.text).await {
                differences.push(format!(
                    "{}: {:?}\n    {difference}",
                    expression.origin, expression.text
                ));
            }
        }
        let (count, all) = (differences.len(), expressions.len());
        differences.truncate(SHOWN);
        assert!(count == 0, "{count} of {all} differ:\n{}", differences.join("\n"));
    }

    async fn compare(&self, text: &str) -> Result<(), String> {
        let theirs = self.ask("parse_query", text).await;
        match (Dialect::all_features().parse(text), theirs) {
            (Err(_), Err(_)) => Ok(()),
            // It could not write infinity as JSON.
            (Ok(ours), Err(error)) if error.is_empty() => self.compare_printed(&ours).await,
            (Ok(_), Err(error)) => Err(format!("we take it, Prometheus says: {error}")),
            (Err(error), Ok(_)) => Err(format!("we refuse it: {error}")),
            (Ok(ours), Ok(theirs)) => self.compare_trees(&ours, &theirs).await,
        }
    }

    async fn compare_trees(&self, query: &Query, theirs: &Value) -> Result<(), String> {
        let ours = tree::of(&query.expr);
        if ours != *theirs {
            return Err(format!("trees differ:\n    ours   {ours}\n    theirs {theirs}"));
        }
        self.compare_printed(query).await
    }

    async fn compare_printed(&self, query: &Query) -> Result<(), String> {
        let theirs = self.ask("format_query", &query.text).await?;
        // Where there are comments, ours has them too.
        let without_comments = Query {
            comments: Vec::new(),
            ..query.clone()
        };
        let ours = without_comments.pretty();
        if theirs.as_str() != Some(&*ours) {
            return Err(format!(
                "printed differently:\n    ours   {ours:?}\n    theirs {theirs}"
            ));
        }
        Ok(())
    }

    /// Whether it is a query to Prometheus.
    pub async fn takes(&self, text: &str) -> bool {
        self.ask("format_query", text).await.is_ok()
    }

    async fn ask(&self, what: &str, text: &str) -> Result<Value, String> {
        let address: SocketAddr = self.server.address("http");
        let body = format!("query={}", http::encode(text));
        let path = format!("/api/v1/{what}");
        let answer = http::post(address, &path, "application/x-www-form-urlencoded", &body).await;
        let mut answer = answer.expect("Prometheus answers").json();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].as_str().unwrap_or_default().to_owned()),
        }
    }
}
