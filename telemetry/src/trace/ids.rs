//! Trace and span ids: made at random, written as lower hex. What they identify is not known here.

use std::cell::RefCell;

use opentelemetry::trace::{SpanId, TraceId};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tracing::span::Id;

thread_local! {
    /// A generator per thread, seeded by the operating system: ids must differ between processes, not be secret.
    static RANDOM: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

/// A number at random; also when the thread is ending.
pub(crate) fn random<T>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    RANDOM
        .try_with(|random| random.borrow_mut().random())
        .unwrap_or_else(|_| SmallRng::from_os_rng().random())
}

/// A new trace id, all 128 bits at random and never zero, which would be invalid.
pub(crate) fn trace_id() -> TraceId {
    TraceId::from(random::<u128>().max(1))
}

/// A new span id, never zero.
pub(crate) fn span_id() -> SpanId {
    SpanId::from(random::<u64>().max(1))
}

/// The id of a span of which nothing is kept: computed from the id of its trace's first span here and its own in the
/// registry, so that it is the same whenever somebody asks. The mix is that of `SplitMix64`, which is a bijection:
/// two spans that exist at one time never get the same.
pub(crate) fn derived(root: SpanId, own: &Id) -> SpanId {
    let mut mixed = own.into_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let root = u64::from_be_bytes(root.to_bytes());
    // Zero is no id, and `root` is taken by the root.
    SpanId::from(if mixed == 0 || mixed ^ root == 0 {
        1
    } else {
        mixed ^ root
    })
}

/// Appends bytes as lower hex.
pub(crate) fn push_hex<const N: usize>(out: &mut String, bytes: &[u8; N]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [[0; 2]; N];
    for (pair, byte) in hex.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    out.push_str(std::str::from_utf8(hex.as_flattened()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    //! Ids are valid, differ, and are written as the protocols want.

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_are_never_zero() {
        let traces: HashSet<_> = (0..10_000).map(|_| trace_id()).collect();
        let spans: HashSet<_> = (0..10_000).map(|_| span_id()).collect();
        assert_eq!((traces.len(), spans.len()), (10_000, 10_000));
        assert!(!traces.contains(&TraceId::INVALID) && !spans.contains(&SpanId::INVALID));
    }

    #[test]
    fn derived_ids_are_stable_and_differ() {
        let root = span_id();
        let all: HashSet<_> = (1..10_000).map(|own| derived(root, &Id::from_u64(own))).collect();
        assert_eq!(all.len(), 9_999);
        assert_eq!(derived(root, &Id::from_u64(7)), derived(root, &Id::from_u64(7)));
        assert!(!all.contains(&SpanId::INVALID) && !all.contains(&root));
    }

    #[test]
    fn hex_is_lower_case_with_leading_zeros() {
        let mut text = String::new();
        push_hex(&mut text, &[0, 0x0a, 0xff]);
        assert_eq!(text, "000aff");
    }
}
