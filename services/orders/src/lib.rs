//! The reference service `orders`: accepts orders by REST and gRPC, sees each through payment and delivery with a
//! saga, and tells others about it through a transactional outbox. It charges no cards and delivers nothing itself.

pub mod domain;
pub mod saga;
pub mod store;
