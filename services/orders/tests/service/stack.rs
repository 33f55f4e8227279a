//! The services together: started, restarted on the same ports, asked, and gone when dropped.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use chassis::trial::{Instance, Trial, new_database, until_async};
use peers::Server;
use proto::notifications::v1::ListNotificationsRequest;
use proto::notifications::v1::notifications_client::NotificationsClient;
use proto::payments::v1::payments_client::PaymentsClient;
use proto::payments::v1::{Charge, ListChargesRequest};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::identity::{Identity, Key};

/// One service that can be killed and started again where it was.
pub(crate) struct Service {
    trial: Trial,
    pub(crate) instance: Instance,
}

impl Service {
    pub(crate) async fn start(trial: Trial) -> Self {
        let instance = trial.start().await;
        let trial = trial
            .env("HTTP_ADDR", instance.http.to_string())
            .env("GRPC_ADDR", instance.grpc.to_string());
        Self { trial, instance }
    }

    pub(crate) fn kill(&mut self) {
        self.instance.kill();
    }

    pub(crate) async fn start_again(&mut self) {
        self.instance = self.trial.start().await;
    }
}

pub(crate) struct Stack {
    pub(crate) folder: TempDir,
    pub(crate) key: Key,
    pub(crate) identity: Identity,
    pub(crate) payments: Service,
    pub(crate) notifications: Service,
    pub(crate) orders: Vec<Service>,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
}

impl Stack {
    /// `instances` of orders on one file, one of each other service.
    pub(crate) async fn start(instances: usize) -> Self {
        telemetry::init_tls();
        let folder = tempfile::tempdir().unwrap();
        let key = Key::new("k1");
        let identity = Identity::start(&key).await;
        let url = identity.url();
        Self::start_with(instances, folder, key, identity, &url, &[], &[]).await
    }

    /// `instances` of orders, one of each other service, each service with its own database on this PostgreSQL.
    pub(crate) async fn start_over(server: &Server, instances: usize) -> Self {
        telemetry::init_tls();
        let folder = tempfile::tempdir().unwrap();
        let key = Key::new("k1");
        let identity = Identity::start(&key).await;
        let url = identity.url();
        let mut databases = Vec::new();
        for name in ["payments", "notifications", "orders"] {
            databases.push((name, new_database(&server.url("postgres")).await));
        }
        Self::start_with(instances, folder, key, identity, &url, &[], &databases).await
    }

    /// One instance of each, told these settings too.
    pub(crate) async fn start_told(settings: &[(&str, String)]) -> Self {
        telemetry::init_tls();
        let folder = tempfile::tempdir().unwrap();
        let key = Key::new("k1");
        let identity = Identity::start(&key).await;
        let url = identity.url();
        Self::start_with(1, folder, key, identity, &url, settings, &[]).await
    }

    /// The same with the real identity, for which the one of the tests only stands by.
    pub(crate) async fn start_with(
        instances: usize,
        folder: TempDir,
        key: Key,
        identity: Identity,
        identity_url: &str,
        settings: &[(&str, String)],
        databases: &[(&str, String)],
    ) -> Self {
        let trial = |service: &str| {
            let trial = Trial::new(&sibling(service), &folder.path().join(service));
            let of_service = databases.iter().filter(|(name, _)| *name == service);
            let urls = of_service.map(|(_, url)| ("DATABASE_URL", url));
            let all = settings.iter().map(|(name, value)| (*name, value)).chain(urls);
            all.fold(trial, |trial, (name, value)| trial.env(name, value))
        };
        let payments = Service::start(trial("payments")).await;
        let notifications = Service::start(trial("notifications")).await;
        let mut orders = Vec::new();
        for number in 0..instances {
            let trial = trial("orders")
                .env("INSTANCE_ID", format!("orders-{number}"))
                .env("IDENTITY_URL", identity_url)
                .env("PAYMENTS_GRPC_URL", payments.instance.grpc_url())
                .env("NOTIFICATIONS_GRPC_URL", notifications.instance.grpc_url())
                .env(
                    "ADMIN_ADDR",
                    format!("unix:{}", admin_socket(&folder, number).display()),
                )
                .env("ADMIN_WRITES", "1")
                .env("ORDERS_LEASE", "2s");
            orders.push(Service::start(trial).await);
        }
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .unwrap();
        let token = key.token("ann", 3600);
        Self {
            folder,
            key,
            identity,
            payments,
            notifications,
            orders,
            client,
            token,
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("orders/orders.db")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.orders[0].instance.url(path)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.client.post(self.url(path)).bearer_auth(&self.token).json(body);
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.client.get(self.url(path)).bearer_auth(&self.token)).await
    }

    /// Places an order and returns its id.
    pub(crate) async fn place(&self, order: &Value) -> String {
        let (status, body) = self.post("/orders", order).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the order has that status and returns it.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        until_async(&format!("order {id} is {status}"), || async move {
            let (code, order) = self.get(&format!("/orders/{id}")).await;
            assert_eq!(code, StatusCode::OK, "{order}");
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// All charges, or those of one order.
    pub(crate) async fn charges(&self, order: &str) -> Vec<Charge> {
        let mut client = PaymentsClient::new(self.payments.instance.channel());
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListChargesRequest {
                page_size: 1000,
                page_token: token,
                order_id: order.to_owned(),
                ..Default::default()
            };
            let page = client.list_charges(request).await.unwrap().into_inner();
            all.extend(page.charges);
            if !page.has_more {
                return all;
            }
            token = page.next_page_token;
        }
    }

    /// Types of the notifications that came of an order's events (empty: of all), oldest first, with their subjects.
    pub(crate) async fn notified(&self, order: &str) -> Vec<(String, String)> {
        let mut client = NotificationsClient::new(self.notifications.instance.channel());
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListNotificationsRequest {
                page_size: 1000,
                page_token: token,
                subject: order.to_owned(),
            };
            let page = client.list_notifications(request).await.unwrap().into_inner();
            all.extend(page.notifications.into_iter().map(|n| (n.subject, n.r#type)));
            token = page.next_page_token;
            if token.is_empty() {
                return all;
            }
        }
    }

    /// Waits until an order's notifications are these.
    pub(crate) async fn until_notified(&self, order: &str, types: &[&str]) {
        until_async(&format!("{order} is told of {types:?}"), || async move {
            let told = self.notified(order).await;
            (told.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>() == types).then_some(())
        })
        .await;
    }
}

/// Where the admin listener of an instance of orders is.
pub(crate) fn admin_socket(folder: &TempDir, number: usize) -> PathBuf {
    folder.path().join(format!("orders-{number}.sock"))
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text}")),
    )
}

pub(crate) fn book(quantity: u32, cents: u64, address: &str) -> Value {
    json!({"items": [{"sku": "book", "quantity": quantity, "unit_price_cents": cents}], "currency": "EUR", "address": address})
}

/// A service's binary: beside our own, the others built if they are missing or old; or in the folder that
/// `SERVICES_BIN` names, to try another build.
pub(crate) fn sibling(name: &str) -> String {
    if let Ok(folder) = std::env::var("SERVICES_BIN") {
        return format!("{folder}/{name}");
    }
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = Path::new(env!("CARGO_BIN_EXE_orders")).parent().unwrap();
    BUILT.get_or_init(|| {
        let mut cargo = peers::cargo();
        // With examples, as tests are: else dependencies are built once more, with fewer features.
        cargo
            .args(["build", "--quiet", "--workspace", "--bins", "--examples"])
            .arg("--target-dir")
            .arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the other services can be built");
    });
    folder.join(name).to_str().unwrap().to_owned()
}
