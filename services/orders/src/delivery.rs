//! Delivery, orders' own step: a warehouse that takes every order over unless it cannot reach the address or has not
//! that many pieces. It sends nothing; it stands for a step that can say no after the money was taken.

use async_trait::async_trait;

use crate::domain::Order;
use crate::ports::Delivery;
use crate::saga::Outcome;

/// The warehouse.
#[derive(Debug, Clone, Copy)]
pub struct Warehouse {
    /// Pieces of one article that it has for one order.
    pub stock: u32,
}

impl Warehouse {
    /// Pieces of one article where nothing else is said.
    pub const STOCK: u32 = 1000;
}

#[async_trait]
impl Delivery for Warehouse {
    async fn deliver(&self, order: &Order) -> Outcome {
        if order.address.to_lowercase().contains("nowhere") {
            return Outcome::Refused {
                reason: "no way leads to this address".into(),
            };
        }
        match order.items.iter().find(|item| item.quantity > self.stock) {
            Some(item) => Outcome::Refused {
                reason: format!("only {} of {} in stock", self.stock, item.sku),
            },
            None => Outcome::Delivered,
        }
    }
}
