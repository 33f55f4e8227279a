//! Charges: what may be asked for, and what is decided. Pure: nothing is stored, sent or timed here.

use chassis::request::Invalid;
use jiff::Timestamp;
use uuid::Uuid;

/// More than this, in cents, is declined.
pub const LIMIT_CENTS: i64 = 1_000_000;
/// More than this, in cents, is no amount at all.
pub const MAX_CENTS: i64 = 1_000_000_000;

/// A checked request to charge an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The order, as the caller names it.
    pub order_id: String,
    /// Stands for this request for ever.
    pub key: String,
    /// 1 to [`MAX_CENTS`].
    pub amount_cents: i64,
    /// Three capital letters.
    pub currency: String,
}

/// What is decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The money is taken.
    Charged,
    /// Nothing is taken.
    Declined(Decline),
}

/// Why nothing is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// More than [`LIMIT_CENTS`].
    OverLimit,
}

impl Decline {
    /// The word for machines, as stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverLimit => "over_limit",
        }
    }

    /// The decline that the word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        (word == Self::OverLimit.as_str()).then_some(Self::OverLimit)
    }
}

/// Decides. The same request always gets the same outcome.
pub fn decide(request: &Request) -> Outcome {
    if request.amount_cents > LIMIT_CENTS {
        Outcome::Declined(Decline::OverLimit)
    } else {
        Outcome::Charged
    }
}

/// A decided and stored request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Its id, UUID version 7.
    pub id: Uuid,
    /// The order that was to be charged.
    pub order_id: String,
    /// The amount.
    pub amount_cents: i64,
    /// Its currency.
    pub currency: String,
    /// What was decided.
    pub outcome: Outcome,
    /// When, to the microsecond.
    pub created_at: Timestamp,
    /// When the money was given back.
    pub refunded_at: Option<Timestamp>,
}

/// Which charge to refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Charge(Uuid),
    /// The one that took money for this order.
    Order(String),
}

impl Request {
    /// Checks the fields of a request.
    pub fn new(order_id: String, key: String, amount_cents: i64, currency: String) -> Result<Self, Invalid> {
        check_order(&order_id)?;
        check_key(&key)?;
        if !(1..=MAX_CENTS).contains(&amount_cents) {
            return Err(Invalid::new("amount_cents", "between 1 and 1000000000"));
        }
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Invalid::new("currency", "three capital letters"));
        }
        Ok(Self {
            order_id,
            key,
            amount_cents,
            currency,
        })
    }

    /// The charge that this request becomes, and the key that stands for it.
    pub fn decided(self, outcome: Outcome, now: Timestamp) -> (String, Charge) {
        let charge = Charge {
            id: Uuid::now_v7(),
            order_id: self.order_id,
            amount_cents: self.amount_cents,
            currency: self.currency,
            outcome,
            created_at: now,
            refunded_at: None,
        };
        (self.key, charge)
    }

    /// True when `charge` is what this request asks for.
    pub fn asks_for(&self, charge: &Charge) -> bool {
        self.order_id == charge.order_id && self.amount_cents == charge.amount_cents && self.currency == charge.currency
    }
}

/// Checks the name of an order.
pub fn check_order(order_id: &str) -> Result<(), Invalid> {
    check(order_id, 64, Invalid::new("order_id", "1 to 64 of A-Z a-z 0-9 . _ : -"))
}

/// Checks an idempotency key.
pub fn check_key(key: &str) -> Result<(), Invalid> {
    check(
        key,
        128,
        Invalid::new("idempotency_key", "1 to 128 of A-Z a-z 0-9 . _ : -"),
    )
}

fn check(text: &str, longest: usize, error: Invalid) -> Result<(), Invalid> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=longest).contains(&text.len()) && text.bytes().all(fits) {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(order: &str, key: &str, amount: i64, currency: &str) -> Result<Request, Invalid> {
        Request::new(order.into(), key.into(), amount, currency.into())
    }

    #[test]
    fn only_amounts_over_the_limit_are_declined() {
        for (amount, outcome) in [
            (1, Outcome::Charged),
            (1_000_000, Outcome::Charged),
            (1_000_001, Outcome::Declined(Decline::OverLimit)),
            (MAX_CENTS, Outcome::Declined(Decline::OverLimit)),
        ] {
            assert_eq!(decide(&request("o", "k", amount, "EUR").unwrap()), outcome, "{amount}");
        }
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let long = "x".repeat(129);
        for (order, key, amount, currency, field) in [
            ("", "k", 1, "EUR", "order_id"),
            (&long[..65], "k", 1, "EUR", "order_id"),
            ("o'; DROP TABLE charges;--", "k", 1, "EUR", "order_id"),
            ("line\nbreak", "k", 1, "EUR", "order_id"),
            ("o", "", 1, "EUR", "idempotency_key"),
            ("o", &long, 1, "EUR", "idempotency_key"),
            ("o", "k", 0, "EUR", "amount_cents"),
            ("o", "k", -5, "EUR", "amount_cents"),
            ("o", "k", i64::MAX, "EUR", "amount_cents"),
            ("o", "k", 1, "eur", "currency"),
            ("o", "k", 1, "EURO", "currency"),
            ("o", "k", 1, "ÉU", "currency"),
        ] {
            assert_eq!(request(order, key, amount, currency).unwrap_err().field, field);
        }
        request(&long[..64], &long[..128], MAX_CENTS, "EUR").unwrap();
    }
}
