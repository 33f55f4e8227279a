//! SIGTERM in the middle of sagas: those that can end do, and those that cannot are given back at once, so that nobody
//! waits for a lease and nothing is lost or done twice.

use chassis::trial::{Trial, until_async};
use proto::payments::v1::ChargeStatus;
use rusqlite::{Connection, OpenFlags};

use crate::stack::{Service, Stack, book, sibling};

/// Longer than any wait of these tests: who waits for a lease fails.
const LEASE: &str = "5m";

impl Stack {
    /// One more instance of orders, which holds what it claims for longer than a test lasts.
    async fn leaver(&self, drain_timeout: &str) -> Service {
        let trial = Trial::new(&sibling("orders"), &self.folder.path().join("orders"))
            .env("INSTANCE_ID", "leaver")
            .env("IDENTITY_URL", self.identity.url())
            .env("PAYMENTS_GRPC_URL", self.payments.instance.grpc_url())
            .env("NOTIFICATIONS_GRPC_URL", self.notifications.instance.grpc_url())
            .env("ORDERS_LEASE", LEASE)
            .env("DRAIN_TIMEOUT", drain_timeout);
        Service::start(trial).await
    }

    /// Orders placed at an instance whose sagas stand still because payments does.
    async fn begun(&self, leaver: &Service) -> Vec<String> {
        self.payments.instance.pause();
        let mut placed = Vec::new();
        for _ in 0..10 {
            let url = leaver.instance.url("/orders");
            let request = self
                .client
                .post(url)
                .bearer_auth(&self.token)
                .json(&book(1, 100, "here"));
            let (status, order) = crate::stack::answer(request).await;
            assert_eq!(status, 201, "{order}");
            placed.push(order["id"].as_str().unwrap().to_owned());
        }
        placed
    }

    /// How many sagas an instance holds now.
    fn held(&self, owner: &str) -> i64 {
        let db = Connection::open_with_flags(self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let query = "SELECT count(*) FROM orders WHERE step <> 'done' AND owner = ?";
        db.query_row(query, [owner], |row| row.get(0)).unwrap()
    }

    fn open_sagas(&self) -> i64 {
        let db = Connection::open_with_flags(self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let query = "SELECT count(*) FROM orders WHERE step <> 'done'";
        db.query_row(query, [], |row| row.get(0)).unwrap()
    }

    async fn each_is_charged_once(&self, placed: &[String]) {
        for id in placed {
            let charges = self.charges(id).await;
            let statuses: Vec<_> = charges.iter().map(proto::payments::v1::Charge::status).collect();
            assert_eq!(statuses, [ChargeStatus::Charged], "{id}");
            self.until_notified(id, &["order.created", "order.paid", "order.delivered"])
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_that_can_end_do_before_the_service_does() {
    let mut stack = Stack::start(1).await;
    let mut leaver = stack.leaver("15s").await;
    // Nobody else is there to do its work.
    stack.orders[0].kill();
    let placed = stack.begun(&leaver).await;
    assert_eq!(stack.held("leaver"), 10);
    leaver.instance.terminate();
    until_async("it is draining", || async {
        leaver
            .instance
            .lines()
            .iter()
            .any(|line| line.contains("draining"))
            .then_some(())
    })
    .await;
    stack.payments.instance.resume();
    assert_eq!(leaver.instance.until_ended().await.code(), Some(0));
    assert_eq!(stack.open_sagas(), 0, "all have ended");
    stack.orders[0].start_again().await;
    stack.each_is_charged_once(&placed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_that_cannot_end_in_time_are_given_back_at_once() {
    let stack = Stack::start(1).await;
    let mut leaver = stack.leaver("500ms").await;
    let placed = stack.begun(&leaver).await;
    assert_eq!(stack.held("leaver"), 10);
    leaver.instance.terminate();
    assert_eq!(leaver.instance.until_ended().await.code(), Some(0));
    assert_eq!(stack.held("leaver"), 0);
    stack.payments.instance.resume();
    for id in &placed {
        stack.until(id, "delivered").await;
    }
    stack.each_is_charged_once(&placed).await;
}
