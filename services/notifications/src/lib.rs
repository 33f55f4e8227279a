//! The reference service notifications: turns events of other services into notifications, each exactly once. It sends
//! nothing anywhere: a notification is a row that anybody may list.

pub mod event;
pub mod grpc;
pub mod store;
pub mod worker;
