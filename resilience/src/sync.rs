//! The atomics and the lock of the lock-free modules: the standard ones, or loom's in the crate's own model tests
//! (`RUSTFLAGS="--cfg resilience_loom" cargo test -p resilience --lib loom`).

#[cfg(not(all(test, resilience_loom)))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering, fence},
};

#[cfg(all(test, resilience_loom))]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering, fence},
};
