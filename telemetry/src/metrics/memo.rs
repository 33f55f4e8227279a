//! Handles that are made once and then found again without a lock: a short list that only grows. It is no map: it is
//! walked from its beginning, and what does not fit is the caller's matter.

use std::sync::OnceLock;

/// Entries that a memo may have; beyond that, walking it would cost more than asking the registry.
const CAPACITY: usize = 64;

/// A list of at most [`CAPACITY`] entries, for many threads at once.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    first: Slot<K, V>,
}

type Slot<K, V> = OnceLock<Box<Entry<K, V>>>;

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    next: Slot<K, V>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self { first: Slot::new() }
    }
}

impl<K, V> Memo<K, V> {
    /// The value whose key `is` the wanted one, made with `make` if there is none; `None` when the memo is full.
    pub(crate) fn get_or_make(&self, is: impl Fn(&K) -> bool, make: impl Fn() -> (K, V)) -> Option<&V> {
        let mut slot = &self.first;
        for _ in 0..CAPACITY {
            // Another thread may put another entry here in the same moment: then the walk goes on behind it.
            let entry = slot.get_or_init(|| {
                let (key, value) = make();
                let next = Slot::new();
                Box::new(Entry { key, value, next })
            });
            if is(&entry.key) {
                return Some(&entry.value);
            }
            slot = &entry.next;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_key_is_made_once_whatever_the_threads_do() {
        let memo = Memo::<usize, usize>::default();
        let made = [const { AtomicUsize::new(0) }; 32];
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (memo, made) = (&memo, &made);
                scope.spawn(move || {
                    for round in 0..1_000 {
                        let wanted = (round * 7 + thread) % made.len();
                        let found = memo.get_or_make(
                            |key| *key == wanted,
                            || {
                                made[wanted].fetch_add(1, Ordering::Relaxed);
                                (wanted, wanted * 2)
                            },
                        );
                        assert_eq!(found, Some(&(wanted * 2)));
                    }
                });
            }
        });
        assert!(made.iter().all(|made| made.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_full_memo_says_so_and_keeps_what_it_has() {
        let memo = Memo::<usize, usize>::default();
        let find = |wanted| memo.get_or_make(|key| *key == wanted, || (wanted, wanted)).copied();
        for key in 0..CAPACITY {
            assert_eq!(find(key), Some(key));
        }
        assert_eq!(find(CAPACITY), None);
        assert_eq!(find(0), Some(0));
    }
}
