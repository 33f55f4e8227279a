//! A restore of `orders.db` to an earlier state: the charges whose orders are gone are refunded and listed, exactly
//! those; orders that the earlier state knows go on without being charged or told again.

use chassis::trial::{until, until_async};
use proto::payments::v1::{Charge, ChargeStatus};
use rusqlite::Connection;
use serde_json::json;

use crate::stack::{Stack, book};

#[tokio::test(flavor = "multi_thread")]
async fn charges_without_orders_are_refunded_and_listed_after_a_restore() {
    let mut stack = Stack::start(1).await;
    // Done before the snapshot.
    let old = stack.place(&book(1, 100, "here")).await;
    stack.until(&old, "delivered").await;
    // Pending in the snapshot, carried through after it: one delivered, one refunded.
    stack.payments.kill();
    let carried = stack.place(&book(1, 200, "here")).await;
    let cancelled = stack.place(&book(1, 300, "here")).await;
    let snapshot = stack.folder.path().join("snapshot.db");
    let database = Connection::open(stack.database()).unwrap();
    // An event that is claimed in a snapshot waits for the end of that claim, which is longer than anybody waits here.
    until("every event is told", || {
        let waiting = database.query_row("SELECT count(*) FROM outbox WHERE state = 0", [], |row| row.get(0));
        matches!(waiting, Ok(0)).then_some(())
    })
    .await;
    database.execute("VACUUM INTO ?", [snapshot.to_str().unwrap()]).unwrap();
    drop(database);
    stack.post(&format!("/orders/{cancelled}/cancel"), &json!({})).await;
    stack.payments.start_again().await;
    stack.until(&carried, "delivered").await;
    stack.until(&cancelled, "refunded").await;
    stack
        .until_notified(&carried, &["order.created", "order.paid", "order.delivered"])
        .await;
    stack
        .until_notified(&cancelled, &["order.created", "order.paid", "order.refunded"])
        .await;
    // Placed after the snapshot: lost with the restore.
    let mut lost = Vec::new();
    for n in 0..5 {
        let id = stack.place(&book(1, 1000 + n, "here")).await;
        stack.until(&id, "delivered").await;
        lost.push(id);
    }

    stack.orders[0].kill();
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", stack.database().display());
        if std::fs::exists(&file).unwrap() {
            std::fs::remove_file(&file).unwrap();
        }
    }
    std::fs::copy(&snapshot, stack.database()).unwrap();
    stack.orders[0].start_again().await;

    let found = until_async("the lost orders' charges are refunded", || async {
        let (_, found) = stack.get("/reconciliation").await;
        (found["refunded"] == 5 && !found["last_pass_at"].is_null()).then_some(found)
    })
    .await;
    let mut listed: Vec<_> = found["charges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["order_id"].as_str().unwrap())
        .collect();
    listed.sort_unstable();
    lost.sort();
    assert_eq!(listed, lost);
    for id in &lost {
        let charges = stack.charges(id).await;
        assert_eq!(
            charges.iter().map(Charge::status).collect::<Vec<_>>(),
            [ChargeStatus::Refunded],
            "{id}"
        );
    }

    // What the snapshot knew goes on: charged once, and what had been refunded is not delivered for nothing.
    stack.until(&old, "delivered").await;
    stack.until(&carried, "delivered").await;
    let order = stack.until(&cancelled, "refunded").await;
    assert_eq!(order["reason"], "refunded_before");
    for (id, status) in [(&old, ChargeStatus::Charged), (&carried, ChargeStatus::Charged)] {
        let charges = stack.charges(id).await;
        assert_eq!(charges.iter().map(Charge::status).collect::<Vec<_>>(), [status]);
    }
    // The same events were told again under the same names, so they took effect once.
    until_async("the outbox is empty", || async {
        let pending = stack.orders[0].instance.metric("outbox_pending").await;
        (pending < 0.5).then_some(())
    })
    .await;
    stack
        .until_notified(&carried, &["order.created", "order.paid", "order.delivered"])
        .await;
    stack
        .until_notified(&cancelled, &["order.created", "order.paid", "order.refunded"])
        .await;
    let (_, dead) = stack.get("/outbox/dead").await;
    assert_eq!(dead["events"], json!([]));
}
