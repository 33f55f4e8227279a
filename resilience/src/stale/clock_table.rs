//! A bounded table that forgets with the CLOCK algorithm (Corbató, "A Paging Experiment with the Multics System", 1968):
//! a hand goes round the entries, forgives those that were used since it last came by, and takes the first that was
//! not. A use costs one mark, no list to keep in order. Times are given by the caller.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// The table. It holds nothing until it is given a size.
#[derive(Debug)]
pub(super) struct ClockTable<K, V> {
    places: HashMap<K, usize>,
    entries: Vec<Entry<K, V>>,
    hand: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    stored: Duration,
    used: bool,
}

impl<K, V> Default for ClockTable<K, V> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
            capacity: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> ClockTable<K, V> {
    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes the size; what does not fit is forgotten.
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.entries.len() > capacity {
            let place = self.find_unused();
            self.remove(place);
        }
        self.entries.shrink_to(capacity);
    }

    /// Stores a value of now.
    pub(super) fn put(&mut self, key: K, value: V, now: Duration) {
        if let Some(place) = self.places.get(&key) {
            let entry = &mut self.entries[*place];
            (entry.value, entry.stored, entry.used) = (value, now, true);
            return;
        }
        let entry = Entry {
            key: key.clone(),
            value,
            stored: now,
            used: false,
        };
        if self.entries.len() < self.capacity {
            self.places.insert(key, self.entries.len());
            self.entries.push(entry);
        } else if self.capacity > 0 {
            let place = self.find_unused();
            self.places.remove(&self.entries[place].key);
            self.places.insert(key, place);
            self.entries[place] = entry;
            // The hand goes on behind it, so that what is new has a whole round to be used in.
            self.hand = place + 1;
        }
    }

    /// The value and its age. One that is too old is forgotten.
    pub(super) fn get<Q>(&mut self, key: &Q, now: Duration, max_age: Duration) -> Option<(V, Duration)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = *self.places.get(key)?;
        let entry = &mut self.entries[place];
        let age = now.saturating_sub(entry.stored);
        if age > max_age {
            self.remove(place);
            return None;
        }
        entry.used = true;
        Some((entry.value.clone(), age))
    }

    /// Moves the hand to the next entry that was not used since it last came by. There must be an entry.
    fn find_unused(&mut self) -> usize {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if !entry.used {
                return self.hand;
            }
            entry.used = false;
            self.hand += 1;
        }
    }

    fn remove(&mut self, place: usize) {
        let removed = self.entries.swap_remove(place);
        self.places.remove(&removed.key);
        if let Some(moved) = self.entries.get(place) {
            if let Some(of_moved) = self.places.get_mut(&moved.key) {
                *of_moved = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u32),
        Get(u8),
        Wait(u64),
        Resize(usize),
    }

    /// One entry of the list: key, value, second in which it was stored, whether it was used.
    type Row = (u8, u32, u64, bool);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0..12_u8, any::<u32>()).prop_map(|(key, value)| Step::Put(key, value)),
            5 => (0..12_u8).prop_map(Step::Get),
            1 => (0..40_u64).prop_map(Step::Wait),
            1 => (1..9_usize).prop_map(Step::Resize),
        ];
        prop::collection::vec(step, 1..150)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list in the order of the clock, searched from end to end.
        #[test]
        fn it_is_a_list_with_a_hand(steps in steps()) {
            let max_age = Duration::from_secs(100);
            let mut table = ClockTable::default();
            table.resize(4);
            let (mut list, mut hand, mut room): (Vec<Row>, usize, usize) = (Vec::new(), 0, 4);
            let mut now = 0_u64;
            let unused = |list: &mut Vec<Row>, hand: &mut usize| loop {
                *hand = if *hand >= list.len() { 0 } else { *hand };
                if !list[*hand].3 {
                    break *hand;
                }
                list[*hand].3 = false;
                *hand += 1;
            };
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(key, value) => {
                        table.put(key, value, Duration::from_secs(now));
                        if let Some(entry) = list.iter_mut().find(|entry| entry.0 == key) {
                            *entry = (key, value, now, true);
                        } else if list.len() < room {
                            list.push((key, value, now, false));
                        } else {
                            let place = unused(&mut list, &mut hand);
                            list[place] = (key, value, now, false);
                            hand = place + 1;
                        }
                    }
                    Step::Get(key) => {
                        let got = table.get(&key, Duration::from_secs(now), max_age);
                        let place = list.iter().position(|entry| entry.0 == key);
                        let expected = place.and_then(|place| {
                            let age = now - list[place].2;
                            if age > 100 {
                                list.swap_remove(place);
                                return None;
                            }
                            list[place].3 = true;
                            Some((list[place].1, Duration::from_secs(age)))
                        });
                        prop_assert_eq!(got, expected, "step {}", number);
                    }
                    Step::Wait(seconds) => now += seconds,
                    Step::Resize(size) => {
                        table.resize(size);
                        room = size;
                        while list.len() > room {
                            let place = unused(&mut list, &mut hand);
                            list.swap_remove(place);
                        }
                    }
                }
                prop_assert_eq!(table.len(), list.len(), "step {}", number);
                prop_assert!(table.len() <= room, "step {}", number);
            }
        }
    }
}
