//! The reference service payments: charges orders once, refunds charges once. It moves no real money.

pub mod charge;
pub mod grpc;
pub mod store;
