//! The reference service identity: registers users, checks their passwords, issues tokens, publishes the keys with which
//! anybody may verify these. It knows nothing of what users may do.

pub mod account;
pub mod http;
pub mod keys;
pub mod password;
pub mod store;
pub mod throttle;
pub mod token;
