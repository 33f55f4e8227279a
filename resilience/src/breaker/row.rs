//! Failures in a row, of one generation. A success only reads as long as there are none.

use crate::sharded::is_later;
use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, resilience_loom))]
mod loom;

/// More in a row are not told apart.
const MOST: u64 = 0xffff_ffff;

/// Generation (32 bits) and number (32 bits), on a line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Row(AtomicU64);

impl Row {
    /// One more; how many there are now. A result of an older generation than the row's is not one of it.
    pub(super) fn failed(&self, generation: u32) -> u64 {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let of = (old >> 32) as u32;
            if is_later(of, generation) {
                return 0;
            }
            let row = if of == generation { old & MOST } else { 0 };
            let row = (row + 1).min(MOST);
            let new = u64::from(generation) << 32 | row;
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return row,
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    pub(super) fn succeeded(&self, generation: u32) {
        let old = self.0.load(Ordering::Relaxed);
        if old & MOST != 0 && old >> 32 == u64::from(generation) {
            // A failure that comes in between was later than this success, and its row stands.
            let _ = self
                .0
                .compare_exchange(old, u64::from(generation) << 32, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
