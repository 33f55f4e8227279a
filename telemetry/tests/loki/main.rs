//! The Loki sink against a real Loki, with every fault between them that a network and a server can have: each line ends
//! in the account, the account is what Loki has stored, and the program is never held up.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod ending;
mod faults;
mod gate;
mod limits;
mod lines;
mod real;
mod sender;
mod spool;
mod whole;
