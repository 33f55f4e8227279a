//! What an order is, and when a request for one is valid. No input or output, no clock: everything that decides takes
//! what it needs as an argument. How an order moves from one status to the next is in [`crate::saga`].

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An order as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The order's name, never used twice, not even after a restore.
    pub id: OrderId,
    /// Who ordered: the subject of the access token.
    pub customer: String,
    /// What was ordered, 1 to [`MAX_ITEMS`] lines.
    pub items: Vec<Item>,
    /// ISO 4217 code in upper case.
    pub currency: String,
    /// Where it goes, 1 to [`MAX_ADDRESS_CHARS`] characters.
    pub address: String,
    /// Sum over the items, in hundredths of the currency; at least 1.
    pub total_cents: u64,
    /// Where the order stands, with its saga.
    pub saga: crate::saga::Saga,
    /// When it was accepted (milliseconds).
    pub created_at: Timestamp,
    /// When its status or saga last changed (milliseconds).
    pub updated_at: Timestamp,
    /// The request that placed it, for the trace.
    pub origin: crate::origin::Origin,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The article, `[A-Za-z0-9._-]{1,64}`.
    pub sku: String,
    /// How many, 1 to [`MAX_QUANTITY`].
    pub quantity: u32,
    /// Price of one in hundredths of the currency, 0 to [`MAX_PRICE_CENTS`].
    pub unit_price_cents: u64,
}

/// Lines in one order.
pub const MAX_ITEMS: usize = 100;
/// Pieces in one line.
pub const MAX_QUANTITY: u32 = 100_000;
/// Price of one piece, in hundredths of the currency.
pub const MAX_PRICE_CENTS: u64 = 100_000_000;
/// Sum of one order, in hundredths of the currency: what payments accepts in one charge.
pub const MAX_TOTAL_CENTS: u64 = 1_000_000_000;
/// Characters in an address.
pub const MAX_ADDRESS_CHARS: usize = 500;
/// Characters in an idempotency key.
pub const MAX_KEY_CHARS: usize = 128;

/// A valid request for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// What is ordered.
    pub items: Vec<Item>,
    /// ISO 4217 code in upper case.
    pub currency: String,
    /// Where it goes.
    pub address: String,
    /// Sum over the items in hundredths of the currency.
    pub total_cents: u64,
}

/// A request for an order as it arrives: numbers may still be out of range.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// What is ordered.
    pub items: Vec<ItemRequest>,
    /// ISO 4217 code.
    pub currency: String,
    /// Where it goes.
    pub address: String,
}

/// One line of an [`OrderRequest`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRequest {
    /// The article.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// Price of one in hundredths of the currency.
    pub unit_price_cents: i64,
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request body.
    pub pointer: String,
    /// What is wrong, a sentence fragment in lower case.
    pub detail: String,
}

impl OrderRequest {
    /// Checks everything and reports all that is wrong, in the order of the body.
    pub fn validate(self) -> Result<NewOrder, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut wrong = |pointer: String, detail: String| errors.push(FieldError { pointer, detail });
        if self.items.is_empty() {
            wrong("/items".into(), "at least one item is needed".into());
        }
        if self.items.len() > MAX_ITEMS {
            wrong("/items".into(), format!("at most {MAX_ITEMS} items fit in one order"));
        }
        let mut items = Vec::with_capacity(self.items.len().min(MAX_ITEMS));
        let mut total: u64 = 0;
        for (index, item) in self.items.into_iter().take(MAX_ITEMS).enumerate() {
            if !is_token(&item.sku, 64) {
                wrong(
                    format!("/items/{index}/sku"),
                    "must be 1 to 64 of A-Z a-z 0-9 . _ -".into(),
                );
            }
            let quantity = u32::try_from(item.quantity)
                .ok()
                .filter(|q| (1..=MAX_QUANTITY).contains(q));
            if quantity.is_none() {
                wrong(
                    format!("/items/{index}/quantity"),
                    format!("must be 1 to {MAX_QUANTITY}"),
                );
            }
            let price = u64::try_from(item.unit_price_cents)
                .ok()
                .filter(|p| *p <= MAX_PRICE_CENTS);
            if price.is_none() {
                wrong(
                    format!("/items/{index}/unit_price_cents"),
                    format!("must be 0 to {MAX_PRICE_CENTS}"),
                );
            }
            if let (Some(quantity), Some(unit_price_cents)) = (quantity, price) {
                // At most 100 * 1e5 * 1e8 = 1e15: no overflow.
                total += u64::from(quantity) * unit_price_cents;
                items.push(Item {
                    sku: item.sku,
                    quantity,
                    unit_price_cents,
                });
            }
        }
        if self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            wrong("/currency".into(), "must be three capital letters, such as EUR".into());
        }
        let chars = self.address.chars().count();
        if self.address.trim().is_empty() || chars > MAX_ADDRESS_CHARS {
            wrong(
                "/address".into(),
                format!("must have 1 to {MAX_ADDRESS_CHARS} characters"),
            );
        } else if self.address.chars().any(|c| c.is_control() && c != '\n') {
            wrong("/address".into(), "must not contain control characters".into());
        }
        if errors.is_empty() && total == 0 {
            errors.push(FieldError {
                pointer: "/items".into(),
                detail: "the total must be at least one cent".into(),
            });
        }
        if errors.is_empty() && total > MAX_TOTAL_CENTS {
            errors.push(FieldError {
                pointer: "/items".into(),
                detail: format!("the total must be at most {MAX_TOTAL_CENTS} cents"),
            });
        }
        if errors.is_empty() {
            Ok(NewOrder {
                items,
                currency: self.currency,
                address: self.address,
                total_cents: total,
            })
        } else {
            Err(errors)
        }
    }
}

impl NewOrder {
    /// Tells two requests apart that come with one idempotency key: SHA-256 over all fields.
    pub fn fingerprint(&self) -> Fingerprint {
        let text = serde_json::json!([self.items, self.currency, self.address]).to_string();
        Fingerprint(sha256(&[text.as_bytes()]))
    }
}

/// What a request asked for, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Whether `text` may be an `Idempotency-Key`: 1 to [`MAX_KEY_CHARS`] visible ASCII characters.
pub fn is_idempotency_key(text: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_token(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// An order's name: a version 7 UUID, so that names rise with time and are never used again after a restore.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(Uuid);

impl OrderId {
    /// A name that nobody had before.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The name whose 16 bytes these are.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The bare UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// What payments tells two charges apart by: one order, one charge, however often it is asked.
    pub fn charge_key(self) -> String {
        format!("order:{}:charge", self.0)
    }

    /// Likewise for refunds, whoever asks: the saga or the reconciliation.
    pub fn refund_key(self) -> String {
        format!("order:{}:refund", self.0)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no order's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an order id")]
pub struct NotAnOrderId;

impl FromStr for OrderId {
    type Err = NotAnOrderId;

    fn from_str(text: &str) -> Result<Self, NotAnOrderId> {
        // Only the hyphenated form: the same order must not have several addresses.
        if text.len() != 36 {
            return Err(NotAnOrderId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| NotAnOrderId)
    }
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted and durable; not charged, or not known to be.
    Pending,
    /// Charged; delivery or refund is under way.
    Paid,
    /// Charged and delivered. Final.
    Delivered,
    /// Never charged: declined, or cancelled in time. Final.
    Cancelled,
    /// Charged and given back. Final.
    Refunded,
    /// Payments cannot carry it out at all; nothing is charged. Final.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Paid,
        Self::Delivered,
        Self::Cancelled,
        Self::Refunded,
        Self::Failed,
    ];

    /// As in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
            Self::Failed => "failed",
        }
    }

    /// Whether it stays for good.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Paid)
    }
}

impl FromStr for Status {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// A word in the database that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

/// What can happen to an order that others are told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// It was accepted.
    Created,
    /// It was charged.
    Paid,
    /// It was delivered.
    Delivered,
    /// It ended without a charge.
    Cancelled,
    /// Its charge was given back.
    Refunded,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Paid,
        Self::Delivered,
        Self::Cancelled,
        Self::Refunded,
    ];

    /// The event's type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "order.created",
            Self::Paid => "order.paid",
            Self::Delivered => "order.delivered",
            Self::Cancelled => "order.cancelled",
            Self::Refunded => "order.refunded",
        }
    }

    /// The event's name: the same order and kind always give the same one, so that an event that is told again after a
    /// restore is still the same event. A version 8 UUID (RFC 9562, 5.8) from SHA-256 over order id and kind.
    pub fn event_id(self, order: OrderId) -> Uuid {
        let hash = sha256(&[order.0.as_bytes(), self.as_str().as_bytes()]);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl FromStr for EventKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: serde_json::Value) -> Result<NewOrder, Vec<FieldError>> {
        serde_json::from_value::<OrderRequest>(json).unwrap().validate()
    }

    #[test]
    fn a_valid_request_has_its_total() {
        let order = request(serde_json::json!({
            "items": [{"sku": "book", "quantity": 2, "unit_price_cents": 1250}, {"sku": "pen", "quantity": 1, "unit_price_cents": 99}],
            "currency": "EUR", "address": "1 Main Street\nSpringfield",
        }))
        .unwrap();
        assert_eq!(order.total_cents, 2599);
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let errors = request(serde_json::json!({
            "items": [{"sku": "a b", "quantity": 0, "unit_price_cents": -1}],
            "currency": "eur", "address": "  ",
        }))
        .unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/items/0/sku",
                "/items/0/quantity",
                "/items/0/unit_price_cents",
                "/currency",
                "/address"
            ]
        );
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let with = |quantity: i64, price: i64| {
            request(
                serde_json::json!({"items": [{"sku": "a", "quantity": quantity, "unit_price_cents": price}], "currency": "EUR", "address": "x"}),
            )
        };
        assert!(with(10, i64::try_from(MAX_PRICE_CENTS).unwrap()).is_ok());
        assert_eq!(
            with(11, i64::try_from(MAX_PRICE_CENTS).unwrap()).unwrap_err()[0].pointer,
            "/items"
        );
        assert!(with(i64::from(MAX_QUANTITY), 1).is_ok());
        assert!(with(i64::from(MAX_QUANTITY) + 1, 1).is_err());
        assert!(with(1, i64::MAX).is_err());
        assert_eq!(with(1, 0).unwrap_err()[0].pointer, "/items");
        assert_eq!(
            request(serde_json::json!({"items": [], "currency": "EUR", "address": "x"})).unwrap_err()[0].pointer,
            "/items"
        );
    }

    #[test]
    fn event_ids_are_stable_and_distinct() {
        let order = OrderId::from_uuid(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001));
        let ids: std::collections::BTreeSet<_> = EventKind::ALL.iter().map(|k| k.event_id(order)).collect();
        assert_eq!(ids.len(), 5);
        // Pinned: a change would make every event after a restore a new one.
        assert_eq!(EventKind::Paid.event_id(order).get_version_num(), 8);
        assert_eq!(EventKind::Paid.event_id(order), EventKind::Paid.event_id(order));
    }

    #[test]
    fn order_ids_have_one_spelling() {
        let id = OrderId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.uuid().simple().to_string().parse::<OrderId>().is_err());
        assert!("".parse::<OrderId>().is_err());
    }

    #[test]
    fn words_come_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }
}
