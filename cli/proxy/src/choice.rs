//! Which version and which instance a request gets. Pure: no clock, no I/O, no shared state but what is passed in.

/// Whether request number `n` (from 0) goes to the side that has `percent` of a hundred.
///
/// Smooth weighted round robin with a random place inside each slot: the sequence is cut into slots that hold exactly
/// one request of the rarer side, and `seed` decides which of the slot's requests it is. Over any hundred requests the
/// share is exact within one, and a periodic pattern of requests cannot line up with the weight (with plain
/// alternation at 50 %, a client that alternates reads and writes would send all writes to one version).
pub(crate) fn takes_share(n: u64, percent: u8, seed: u64) -> bool {
    match percent {
        0 => false,
        100.. => true,
        51..=99 => !in_slot(n, 100 - u64::from(percent), seed),
        1..=50 => in_slot(n, u64::from(percent), seed),
    }
}

/// Slot `k` of `p` per hundred holds the requests `ceil(100k/p) .. ceil(100(k+1)/p)`.
fn in_slot(n: u64, p: u64, seed: u64) -> bool {
    let k = n * p / 100;
    let start = (100 * k).div_ceil(p);
    let end = (100 * (k + 1)).div_ceil(p);
    n == start + mix(k ^ seed) % (end - start)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The candidate with the fewest requests under way; the search starts at `turn`, so that equals take turns. None when
/// `load` says none for all of them, which is how a candidate is excluded.
pub(crate) fn least_loaded(count: usize, turn: usize, load: impl Fn(usize) -> Option<u64>) -> Option<usize> {
    let mut best: Option<(u64, usize)> = None;
    for step in 0..count {
        let index = (turn + step) % count;
        if let Some(load) = load(index)
            && best.is_none_or(|(least, _)| load < least)
        {
            best = Some((load, index));
        }
    }
    best.map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_window_of_a_hundred_has_the_share_within_one_slot(percent in 0_u8..=100, seed: u64, from in 0_u64..1_000_000) {
            // From a slot's start the share is exact; from anywhere, at most one slot at either end is cut.
            let exact = (0..100).filter(|n| takes_share(from / 100 * 100 + n, percent, seed)).count();
            prop_assert_eq!(exact, usize::from(percent));
            let any = (from..from + 100).filter(|n| takes_share(*n, percent, seed)).count();
            prop_assert!(any.abs_diff(usize::from(percent)) <= 1, "{} of {}", any, percent);
        }

        #[test]
        fn a_periodic_stream_sees_the_same_share(percent in 10_u8..=90, seed: u64, period in 2_u64..8) {
            let taken = (0..4000_u64).map(|n| n * period).filter(|n| takes_share(*n, percent, seed)).count();
            let expected = 40.0 * f64::from(percent);
            prop_assert!((taken as f64 - expected).abs() < 400.0, "{} of {}", taken, expected);
        }
    }

    #[test]
    fn the_least_loaded_wins_and_equals_take_turns() {
        let loads = [Some(3), Some(1), None, Some(1)];
        assert_eq!(least_loaded(4, 0, |index| loads[index]), Some(1));
        assert_eq!(least_loaded(4, 2, |index| loads[index]), Some(3));
        assert_eq!(least_loaded(4, 0, |_| None), None);
        assert_eq!(least_loaded(0, 7, |_| Some(0)), None);
    }
}
