//! One customer of the shop: signs in once, and can ask which orders the shop still knows. It speaks only the services'
//! public HTTP, as any client would.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::exit::Exit;

const TIMEOUT: Duration = Duration::from_secs(10);
const PAGE: usize = 500;

/// Charges whose order is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reconciliation {
    /// How many there are.
    pub(crate) missing_orders: u64,
    /// How many of them were given back.
    pub(crate) refunded: u64,
}

/// A signed-in customer.
#[derive(Debug)]
pub(crate) struct Customer {
    client: Client,
    orders: String,
    /// The access token, sent with every order.
    pub(crate) token: String,
}

impl Customer {
    /// Registers and signs in at `identity`; `orders` is the stable address of the shop.
    pub(crate) async fn sign_in(identity: &str, orders: &str) -> Result<Self, Failure> {
        // The client insists on a provider, though a tour never leaves loopback.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Failure::bug("could not make an HTTP client").because(&error))?;
        let credentials = json!({
            "email": "visitor@example.org",
            "password": uuid::Uuid::new_v4().to_string(),
        });
        let register = client
            .post(format!("{identity}/register"))
            .json(&credentials)
            .send()
            .await;
        register
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| unreachable("identity", &error))?;
        let login = client.post(format!("{identity}/login")).json(&credentials).send().await;
        let login = login
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| unreachable("identity", &error))?;
        let answer: Value = login.json().await.map_err(|error| unreachable("identity", &error))?;
        let token = answer
            .get("access_token")
            .and_then(Value::as_str)
            .ok_or_else(|| malformed("identity"))?
            .to_owned();
        Ok(Self {
            client,
            orders: orders.to_owned(),
            token,
        })
    }

    /// The identifiers of all of this customer's orders that the shop knows now.
    pub(crate) async fn known_orders(&self) -> Result<HashSet<String>, Failure> {
        let mut known = HashSet::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("/orders?limit={PAGE}{after}")).await?;
            let orders = page
                .get("orders")
                .and_then(Value::as_array)
                .ok_or_else(|| malformed("orders"))?;
            let ids = orders
                .iter()
                .filter_map(|order| order.get("id").and_then(Value::as_str));
            known.extend(ids.map(str::to_owned));
            match page.get("next_after").and_then(Value::as_str) {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(known),
            }
        }
    }

    /// What the shop found when it compared charges with orders; none until it has looked.
    pub(crate) async fn reconciliation(&self) -> Result<Option<Reconciliation>, Failure> {
        let page = self.get("/reconciliation").await?;
        let count = |name: &str| {
            page.get(name)
                .and_then(Value::as_u64)
                .ok_or_else(|| malformed("orders"))
        };
        if page.get("last_pass_at").is_none_or(Value::is_null) {
            return Ok(None);
        }
        Ok(Some(Reconciliation {
            missing_orders: count("missing_orders")?,
            refunded: count("refunded")?,
        }))
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = self
            .client
            .get(format!("{}{path}", self.orders))
            .bearer_auth(&self.token);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| unreachable("orders", &error))?;
        answer.json().await.map_err(|error| unreachable("orders", &error))
    }
}

fn unreachable(service: &str, error: &reqwest::Error) -> Failure {
    Failure::new(
        Exit::Unreachable,
        "service_unreachable",
        format!("`{service}` did not answer as it should"),
    )
    .because(error)
}

fn malformed(service: &str) -> Failure {
    Failure::new(
        Exit::No,
        "malformed_answer",
        format!("`{service}` answered with a document of another shape"),
    )
}
