//! Clients that call for orders at random, repeat what failed and keep what they were told, and the comparison of that
//! with what the service has. No test here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::trial::Instance;
use proto::payments::v1::{Charge, ChargeStatus};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use tonic::{Code, Status};

use super::client::{Client, charges, client, payment, refund};

/// What every order costs.
pub(crate) const CENTS: i64 = 1250;

/// What a client was told of an order.
#[derive(Debug, Default)]
pub(crate) struct Told {
    charge: Option<String>,
    refunded: bool,
}

/// One client: calls for orders that it shares with others, repeats what failed, and keeps what was answered.
pub(crate) async fn shop(
    mut client: Client,
    mut random: StdRng,
    told: Arc<Mutex<HashMap<String, Told>>>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::SeqCst) {
        let order = format!("o{}", random.random_range(0..400));
        if random.random_bool(0.8) {
            match client
                .process_payment(payment(&order, &format!("pay-{order}"), CENTS))
                .await
            {
                Ok(answer) => {
                    let id = answer.into_inner().charge.unwrap().charge_id;
                    let mut told = told.lock().await;
                    let known = told.entry(order).or_default().charge.get_or_insert(id.clone());
                    assert_eq!(*known, id, "one order, one charge, whoever asks");
                }
                Err(status) => assert!(passes(&status), "{status:?}"),
            }
        } else {
            match client.refund_payment(refund(&order, &format!("refund-{order}"))).await {
                Ok(_) => told.lock().await.entry(order).or_default().refunded = true,
                Err(status) => assert!(passes(&status) || status.code() == Code::NotFound, "{status:?}"),
            }
        }
    }
}

/// An error of a service that is being killed, or that has lost its database: not a wrong answer.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

/// What was answered is stored, and no order has two charges.
pub(crate) async fn check(service: &Instance, told: &HashMap<String, Told>) {
    let charges = charges(&mut client(service)).await;
    let by_order: HashMap<&str, &Charge> = charges
        .iter()
        .map(|charge| (charge.order_id.as_str(), charge))
        .collect();
    assert_eq!(by_order.len(), charges.len(), "no order has two charges");
    for (order, told) in told {
        let stored = by_order
            .get(order.as_str())
            .unwrap_or_else(|| panic!("{order} was answered and is lost: {told:?}"));
        if let Some(id) = &told.charge {
            assert_eq!(*id, stored.charge_id, "{order}");
        }
        if told.refunded {
            assert_eq!(stored.status(), ChargeStatus::Refunded, "{order}: the refund is lost");
        }
    }
}
