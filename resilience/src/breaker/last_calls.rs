//! The window of exactly the last N calls: a ring behind a short lock, with running sums, so that neither its length
//! nor the traffic matters. The window of time is `sharded`.

use std::collections::VecDeque;

use super::Calls;
use crate::sharded::is_later;

/// The last calls of one generation.
#[derive(Debug)]
pub(super) struct LastCalls {
    size: usize,
    generation: u32,
    /// Failed, slow.
    ring: VecDeque<(bool, bool)>,
    sums: Calls,
}

impl LastCalls {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            generation: 0,
            ring: VecDeque::with_capacity(size),
            sums: Calls::default(),
        }
    }

    /// Adds a call; a call of an older generation is left out, one of a later generation begins anew.
    pub(super) fn add(&mut self, generation: u32, failed: bool, slow: bool) {
        if generation != self.generation {
            if is_later(self.generation, generation) {
                return;
            }
            self.clear();
            self.generation = generation;
        }
        while self.ring.len() >= self.size {
            self.forget_oldest();
        }
        self.ring.push_back((failed, slow));
        self.sums.all += 1;
        self.sums.failed += u64::from(failed);
        self.sums.slow += u64::from(slow);
    }

    pub(super) fn sums(&self, generation: u32) -> Calls {
        if generation == self.generation {
            self.sums
        } else {
            Calls::default()
        }
    }

    /// Keeps the latest calls that the new size holds.
    pub(super) fn resize(&mut self, size: usize) {
        self.size = size;
        while self.ring.len() > size {
            self.forget_oldest();
        }
        self.ring.reserve(size - self.ring.len());
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.sums = Calls::default();
    }

    fn forget_oldest(&mut self) {
        if let Some((failed, slow)) = self.ring.pop_front() {
            self.sums.all -= 1;
            self.sums.failed -= u64::from(failed);
            self.sums.slow -= u64::from(slow);
        }
    }
}
