//! What orders needs of others, as traits: taking money, sending goods, telling others. The real ones are in
//! [`crate::peers`] and [`crate::delivery`]; tests bring their own.

use async_trait::async_trait;

use crate::domain::Order;
use crate::saga::Outcome;
use crate::store::Event;

/// Takes money and gives it back.
#[async_trait]
pub trait Payments: Send + Sync + 'static {
    /// Charges the order under [`crate::domain::OrderId::charge_key`]. Never fails: what is not known is
    /// [`Outcome::Unknown`].
    async fn charge(&self, order: &Order) -> Outcome;

    /// Gives the order's charge back under [`crate::domain::OrderId::refund_key`]. Never fails likewise.
    async fn refund(&self, order: &Order) -> Outcome;

    /// The charges that took money and kept it, oldest first, after the place that an earlier page named.
    async fn kept_charges(&self, after: &str) -> Result<ChargePage, PeerError>;

    /// Gives a charge back whose order may be unknown.
    async fn refund_charge(&self, charge: &Charge) -> Result<(), PeerError>;
}

/// Sends goods.
#[async_trait]
pub trait Delivery: Send + Sync + 'static {
    /// Takes the order over for delivery, or refuses. Asking twice is as good as once.
    async fn deliver(&self, order: &Order) -> Outcome;
}

/// Tells others what happened.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Hands an event over; asking twice is as good as once.
    async fn publish(&self, event: &Event) -> Result<(), PublishError>;
}

/// One charge, as far as orders cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Payments' name for it.
    pub id: String,
    /// The order's name as payments knows it.
    pub order_id: String,
    /// Hundredths of the currency.
    pub amount_cents: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// RFC 3339.
    pub created_at: String,
}

/// Some charges and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChargePage {
    /// Oldest first.
    pub charges: Vec<Charge>,
    /// Where the next page begins, also when its charges are still to come.
    pub next: String,
    /// Whether there are more now.
    pub more: bool,
}

/// Another service did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{peer}: {reason}")]
pub struct PeerError {
    /// Which service.
    pub peer: &'static str,
    /// What was seen.
    pub reason: String,
}

/// Why an event was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The consumer saw it and will not have it.
    #[error("refused: {0}")]
    Refused(String),
    /// The consumer was not reached, or nobody knows.
    #[error("not reached: {0}")]
    Unreachable(String),
}
