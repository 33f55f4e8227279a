//! What becomes of each pack. Pure.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};

use super::table::Pack;
use super::{MaxUnused, PruneOptions};
use crate::repo::PACK_SIZE;

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays in the index.
    Keep,
    /// It was marked, and goes back into the index.
    Recover,
    /// What is needed of it is stored anew; then it is marked.
    Repack,
    /// Nothing needs it: it is marked.
    Mark,
    /// It stays marked, since then.
    Wait(Timestamp),
    /// It is deleted.
    Delete,
    /// It is gone, and the index forgets it.
    Drop,
}

/// A pack shorter than this is small.
const SMALL: u64 = PACK_SIZE as u64 / 4;
/// So many small packs of one kind are merged.
const MANY_SMALL: usize = 4;

/// What becomes of each pack; `now` is the store's time.
pub(super) fn choose(packs: &[Pack], now: Timestamp, options: &PruneOptions) -> Vec<Fate> {
    let mut fates: Vec<Fate> = packs.iter().map(|pack| alone(pack, now, options.grace)).collect();
    let mut budget = options.max_repack.unwrap_or(u64::MAX);
    reduce_waste(packs, &mut fates, options.max_unused, &mut budget);
    for is_tree in [false, true] {
        merge_small(packs, &mut fates, is_tree, &mut budget);
    }
    fates
}

/// What a pack is by itself.
fn alone(pack: &Pack, now: Timestamp, grace: SignedDuration) -> Fate {
    let no_grace = grace <= SignedDuration::ZERO;
    match (pack.size, pack.kept_blobs > 0, pack.is_indexed) {
        (None, _, _) => Fate::Drop,
        (Some(_), true, true) => Fate::Keep,
        (Some(_), true, false) => Fate::Recover,
        (Some(_), false, _) if no_grace => Fate::Delete,
        (Some(_), false, true) => Fate::Mark,
        (Some(_), false, false) => match pack.marked {
            Some(since) if now.duration_since(since) >= grace => Fate::Delete,
            Some(since) => Fate::Wait(since),
            // When it was marked nobody knows: from now on.
            None => Fate::Wait(now),
        },
    }
}

/// Repacks what has the largest share of waste, until no more waste is left than may be.
fn reduce_waste(packs: &[Pack], fates: &mut [Fate], max: MaxUnused, budget: &mut u64) {
    let stays = |fate: Fate| matches!(fate, Fate::Keep | Fate::Recover);
    let staying = || packs.iter().zip(fates.iter()).filter(|(_, fate)| stays(**fate));
    let needed: u64 = staying().map(|(pack, _)| pack.kept_bytes).sum();
    let mut waste: u64 = staying().map(|(pack, _)| pack.unused_bytes()).sum();
    let limit = match max {
        MaxUnused::Unlimited => return,
        MaxUnused::Bytes(bytes) => bytes,
        // Of the whole repository, waste included.
        MaxUnused::Share(share) if share >= 1.0 => return,
        MaxUnused::Share(share) => (share.max(0.0) / (1.0 - share.max(0.0)) * needed as f64) as u64,
    };
    let mut wasteful: Vec<usize> = (0..packs.len())
        .filter(|at| fates[*at] == Fate::Keep && packs[*at].unused_bytes() > 0)
        .collect();
    wasteful.sort_by_key(|at| {
        let pack = &packs[*at];
        let share = u128::from(pack.unused_bytes()) * 1_000_000_000 / u128::from(pack.bytes.max(1));
        (Reverse(share), *at)
    });
    for at in wasteful {
        if waste <= limit {
            break;
        }
        if packs[at].kept_bytes <= *budget {
            *budget -= packs[at].kept_bytes;
            waste -= packs[at].unused_bytes();
            fates[at] = Fate::Repack;
        }
    }
}

/// Merges small packs of one kind, if there are many.
fn merge_small(packs: &[Pack], fates: &mut [Fate], is_tree: bool, budget: &mut u64) {
    let is_small = |pack: &Pack| {
        (pack.has_trees, pack.has_data) == (is_tree, !is_tree) && pack.size.is_some_and(|size| size < SMALL)
    };
    let small: Vec<usize> = (0..packs.len())
        .filter(|at| fates[*at] == Fate::Keep && is_small(&packs[*at]))
        .collect();
    if small.len() < MANY_SMALL {
        return;
    }
    for at in small {
        if packs[at].kept_bytes <= *budget {
            *budget -= packs[at].kept_bytes;
            fates[at] = Fate::Repack;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::Id;

    const MIB: u64 = 1 << 20;

    fn pack(number: u8, bytes: u64, kept: u64) -> Pack {
        Pack {
            size: Some(bytes),
            is_indexed: true,
            bytes,
            kept_bytes: kept,
            kept_blobs: u32::from(kept > 0),
            has_data: true,
            ..Pack::new(Id::of(&[number]))
        }
    }

    fn options(max_unused: MaxUnused) -> PruneOptions {
        PruneOptions {
            max_unused,
            ..PruneOptions::new(now())
        }
    }

    fn now() -> Timestamp {
        "2024-06-01T12:00:00Z".parse().unwrap()
    }

    fn ago(hours: i64) -> Timestamp {
        now() - SignedDuration::from_hours(hours)
    }

    #[test]
    fn what_a_pack_is_by_itself() {
        let marked = |since| Pack {
            is_indexed: false,
            marked: since,
            ..pack(1, 16 * MIB, 0)
        };
        let gone = Pack {
            size: None,
            ..pack(1, 16 * MIB, 0)
        };
        let back = Pack {
            kept_blobs: 1,
            kept_bytes: MIB,
            ..marked(Some(ago(90)))
        };
        let table = [
            (pack(1, 16 * MIB, 16 * MIB), Fate::Keep),
            (pack(1, 16 * MIB, 0), Fate::Mark),
            (marked(Some(ago(23))), Fate::Wait(ago(23))),
            (marked(Some(ago(24))), Fate::Delete),
            (marked(None), Fate::Wait(now())),
            (back, Fate::Recover),
            (gone, Fate::Drop),
            // It was marked by a prune that was cut before the index that names it was gone.
            (
                Pack {
                    marked: Some(ago(90)),
                    ..pack(1, 16 * MIB, 0)
                },
                Fate::Mark,
            ),
        ];
        for (pack, expected) in table {
            let no_grace = PruneOptions {
                grace: SignedDuration::ZERO,
                ..options(MaxUnused::Unlimited)
            };
            let at_once = choose(std::slice::from_ref(&pack), now(), &no_grace);
            assert_eq!(choose(&[pack], now(), &options(MaxUnused::Unlimited)), [expected]);
            match expected {
                Fate::Mark | Fate::Wait(_) | Fate::Delete => assert_eq!(at_once, [Fate::Delete]),
                other => assert_eq!(at_once, [other]),
            }
        }
    }

    #[test]
    fn the_most_wasteful_go_first_and_no_further_than_they_must() {
        let packs = [
            pack(1, 16 * MIB, 15 * MIB),
            pack(2, 16 * MIB, 2 * MIB),
            pack(3, 16 * MIB, 8 * MIB),
            pack(4, 16 * MIB, 16 * MIB),
        ];
        let repacked = |max_unused, max_repack| {
            let options = PruneOptions {
                max_repack,
                ..options(max_unused)
            };
            let fates = choose(&packs, now(), &options);
            let those = (1..).zip(fates).filter(|(_, fate)| *fate == Fate::Repack);
            those.map(|(number, _)| number).collect::<Vec<u8>>()
        };
        assert_eq!(repacked(MaxUnused::Bytes(9 * MIB), None), [2]);
        assert_eq!(repacked(MaxUnused::Bytes(0), None), [1, 2, 3]);
        assert_eq!(
            repacked(MaxUnused::Share(0.05), None),
            [2, 3],
            "1 MiB of 42 is below 5 %"
        );
        assert_eq!(repacked(MaxUnused::Bytes(0), Some(3 * MIB)), [2]);
        assert_eq!(repacked(MaxUnused::Unlimited, None), [0_u8; 0]);
    }

    #[test]
    fn many_small_packs_of_one_kind_are_merged() {
        let small = |number| pack(number, MIB, MIB);
        let three: Vec<Pack> = (0..3).map(small).collect();
        let mut four: Vec<Pack> = (0..4).map(small).collect();
        let choose = |packs: &[Pack]| choose(packs, now(), &options(MaxUnused::Share(0.05)));
        assert_eq!(choose(&three), [Fate::Keep; 3]);
        assert_eq!(choose(&four), [Fate::Repack; 4]);
        (four[3].has_data, four[3].has_trees) = (false, true);
        assert_eq!(choose(&four), [Fate::Keep; 4], "trees are not merged with data");
    }

    proptest! {
        #[test]
        fn limits_hold_and_nothing_needed_goes(
            sizes in proptest::collection::vec((1..40_u64, 0..=40_u64, any::<bool>(), proptest::option::of(0..48_i64)), 0..40),
            share in 0.0..1.2_f64,
            budget in proptest::option::of(0..200_u64),
        ) {
            let packs: Vec<Pack> = (0..).zip(&sizes).map(|(number, (size, kept, indexed, marked))| Pack {
                is_indexed: *indexed,
                marked: marked.map(ago),
                ..pack(number, size * MIB, (*kept).min(*size) * MIB)
            }).collect();
            let options = PruneOptions { max_repack: budget.map(|mib| mib * MIB), ..options(MaxUnused::Share(share)) };
            let fates = choose(&packs, now(), &options);
            let (mut needed, mut waste, mut rewritten) = (0, 0, 0);
            for (pack, fate) in packs.iter().zip(&fates) {
                let stays = matches!(fate, Fate::Keep | Fate::Recover | Fate::Repack);
                prop_assert_eq!(stays, pack.kept_blobs > 0);
                needed += pack.kept_bytes;
                match fate {
                    Fate::Keep | Fate::Recover => waste += pack.unused_bytes(),
                    Fate::Repack => rewritten += pack.kept_bytes,
                    _ => {}
                }
            }
            prop_assert!(budget.is_none_or(|mib| rewritten <= mib * MIB));
            let recovering = packs.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Recover);
            let fixed: u64 = recovering.map(|(pack, _)| pack.unused_bytes()).sum();
            if budget.is_none() && share < 1.0 {
                let limit = (share / (1.0 - share) * needed as f64) as u64;
                prop_assert!(waste <= limit.max(fixed), "{} of {}", waste, needed);
            }
        }
    }
}
