//! The protobuf messages, gRPC clients and servers of the reference services, generated from the `.proto` files beside
//! this crate's manifest and checked in. No logic lives here; `cargo xtask codegen` writes all modules named `v1`.

/// `opsctl.notifications`: events and what became of them.
pub mod notifications {
    pub mod v1;
}
/// `opsctl.orders`: orders through payment and delivery.
pub mod orders {
    pub mod v1;
}
/// `opsctl.payments`: charges and refunds.
pub mod payments {
    pub mod v1;
}
