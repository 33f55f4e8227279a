//! Who has what of the shop for itself alone: tests that need different services run beside each other.

use tokio::sync::{Mutex, MutexGuard};

/// Every part that one test alone may change at a time, in the order in which they are taken, so that no two tests wait for
/// each other.
static PARTS: [(&str, Mutex<()>); 5] = [
    ("identity", Mutex::const_new(())),
    ("notifications", Mutex::const_new(())),
    ("orders", Mutex::const_new(())),
    ("payments", Mutex::const_new(())),
    // Nodes that are played, and what runs there.
    ("warehouse", Mutex::const_new(())),
];

/// All of them: for what the whole cluster feels.
pub const EVERYTHING: &[&str] = &["identity", "notifications", "orders", "payments", "warehouse"];

/// Some parts, until dropped.
pub struct Turn(#[expect(dead_code, reason = "held, not read")] Vec<MutexGuard<'static, ()>>);

impl Turn {
    /// Waits until nobody else has any of these.
    pub async fn take(parts: &[&str]) -> Self {
        let mut taken = Vec::new();
        for (name, part) in &PARTS {
            if parts.contains(name) {
                taken.push(part.lock().await);
            }
        }
        assert_eq!(taken.len(), parts.len(), "{parts:?}");
        Self(taken)
    }
}
