//! Which spans are recorded, answered by one load: most spans of a busy service are not sampled, and must not pay for a
//! look into the registry to learn it. What a recorded span holds is in `recording`.

use std::sync::atomic::{AtomicU32, Ordering};

use tracing::span::Id;

/// Slots; with a thousand recorded spans alive at one time, one unsampled span in four is looked up in vain.
const SLOTS: usize = 4096;

/// A counting filter over the ids of the recorded spans that live: never wrong when it says no.
pub(crate) struct Recorded(Box<[AtomicU32]>);

impl Default for Recorded {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Recorded {
    /// Whether the span may be recorded. `false` is certain.
    #[inline]
    pub(crate) fn may_hold(&self, id: &Id) -> bool {
        // Whoever has a span's id got it after the span was made, by something that orders memory.
        self.slot(id).load(Ordering::Relaxed) != 0
    }

    /// A recorded span began.
    pub(crate) fn add(&self, id: &Id) {
        self.slot(id).fetch_add(1, Ordering::Relaxed);
    }

    /// It ended.
    pub(crate) fn remove(&self, id: &Id) {
        self.slot(id).fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn slot(&self, id: &Id) -> &AtomicU32 {
        // The registry's ids are an index with a generation above it: multiplied, both reach the upper bits.
        let mixed = id.into_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.0[(mixed >> 52) as usize]
    }
}

#[cfg(test)]
mod tests {
    //! No false "no", and a filter that is empty again when all spans ended.

    use super::*;

    #[test]
    fn it_holds_what_lives_and_forgets_what_ended() {
        let recorded = Recorded::default();
        let ids: Vec<Id> = (1..=1000).map(|id| Id::from_u64(id << 3 | 1)).collect();
        for id in &ids {
            assert!(!ids.is_empty());
            recorded.add(id);
        }
        assert!(ids.iter().all(|id| recorded.may_hold(id)));
        let others = (10_000..20_000_u64)
            .filter(|id| recorded.may_hold(&Id::from_u64(*id)))
            .count();
        assert!(others < 4000, "{others} of 10000 others would be looked up");
        for id in &ids {
            recorded.remove(id);
        }
        assert!(!ids.iter().any(|id| recorded.may_hold(id)));
    }
}
