//! An anytime-valid bound on one error rate: evidence that the canary alone meets its objective, stable or no stable.
//! It compares with nothing; that is what the comparison of odds beside it is for.
//!
//! A mixture of bets against "the rate is `p0` or more" (betting on a Bernoulli mean, Waudby-Smith & Ramdas 2024): for
//! `k` errors in `n` requests the evidence is the mean of `(p/p0)^k ((1-p)/(1-p0))^(n-k)` over rates `p < p0`. The
//! weights below need about 370, 650 and 860 requests with 0, 1 and 2 errors to show 1 % at α = 0.05, and scale with `p0`.

/// Rates bet on, as parts of the allowed rate, in eighths: 0/8 to 7/8.
const BETS: i32 = 8;
/// Weight of the bet that there is no error at all.
const PERFECT: f64 = 0.2;
/// How the weight of the other bets falls from one to the next.
const FALL: f64 = 0.7;

/// `ln e` of `bad` out of `requests` against "the rate is `allowed` or more".
///
/// `allowed` is a ratio. With nothing allowed (0) nothing can be shown and the answer is 0, no evidence; with everything
/// allowed (1) likewise. Never NaN; `bad` above `requests` counts as `requests`.
pub fn ln_evidence_under(allowed: f64, requests: u64, bad: u64) -> f64 {
    if !(allowed > 0.0 && allowed < 1.0) || requests == 0 {
        return 0.0;
    }
    let bad = bad.min(requests) as f64;
    let good = requests as f64 - bad;
    let mut terms = [f64::NEG_INFINITY; BETS as usize];
    let scale: f64 = (0..BETS - 1).map(|i| FALL.powi(i)).sum();
    for (i, term) in (0..BETS).zip(&mut terms) {
        let part = f64::from(i) / f64::from(BETS);
        let gain = good * ((-part * allowed).ln_1p() - (-allowed).ln_1p());
        if i == 0 {
            if bad == 0.0 {
                *term = PERFECT.ln() + gain;
            }
        } else {
            let weight = (1.0 - PERFECT) * FALL.powi(i - 1) / scale;
            *term = weight.ln() + bad * part.ln() + gain;
        }
    }
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln()
}

/// Rates bet on against the objective, as multiples of the allowed rate.
const WORSE: [f64; 7] = [1.5, 2.0, 3.0, 5.0, 10.0, 25.0, 100.0];
/// An objective of 100 % allows nothing; it is judged as one error in 100,000, or the first error would be infinite evidence.
const LEAST_ALLOWED: f64 = 1e-5;

/// `ln e` of `bad` out of `requests` against "the rate is `allowed` or less": evidence that the objective is missed.
///
/// Never NaN; 0 without requests or when everything is allowed. `bad` above `requests` counts as `requests`.
pub fn ln_evidence_over(allowed: f64, requests: u64, bad: u64) -> f64 {
    let allowed = allowed.max(LEAST_ALLOWED);
    if allowed >= 1.0 || allowed.is_nan() || requests == 0 {
        return 0.0;
    }
    let bad = bad.min(requests) as f64;
    let good = requests as f64 - bad;
    let term = |times: f64| {
        let rate = (allowed * times).min(f64::midpoint(allowed, 1.0));
        bad * (rate / allowed).ln() + good * ((-rate).ln_1p() - (-allowed).ln_1p())
    };
    let top = WORSE.iter().map(|t| term(*t)).fold(f64::MIN, f64::max);
    let sum: f64 = WORSE.iter().map(|t| (term(*t) - top).exp()).sum();
    top + (sum / WORSE.len() as f64).ln()
}

/// The smallest rate that `bad` out of `requests` excludes at level `alpha`: "at most this, with confidence 1 - α".
/// 1 while nothing is excluded.
pub fn upper_bound(requests: u64, bad: u64, alpha: f64) -> f64 {
    let shown = |rate: f64| ln_evidence_under(rate, requests, bad) >= -alpha.ln();
    let (mut low, mut high) = (0.0, 1.0);
    if requests == 0 || !shown(1.0 - 1e-12) {
        return 1.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if shown(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// How many requests have to be seen in all, if `bad` stays as it is, until the rate is shown to be under `allowed`.
/// `None` when it cannot be shown (nothing is allowed).
pub fn requests_needed(allowed: f64, bad: u64, alpha: f64) -> Option<u64> {
    if !(allowed > 0.0 && allowed < 1.0) {
        return None;
    }
    let enough = |n: u64| ln_evidence_under(allowed, n, bad) >= -alpha.ln();
    let mut high = bad.max(1);
    while !enough(high) {
        high = high.checked_mul(2).filter(|n| *n < 1 << 50)?;
    }
    let mut low = bad;
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// Bad answers by which a comparison at equal rates passes.
pub(super) const BAD_FOR_ODDS: f64 = 10.0;

/// About how many requests a pass takes at a rate of `ratio`: under `allowed`, or compared with a stable version that has
/// the same rate, whichever comes first. `None` when neither is possible: nothing is allowed, and nothing is bad.
pub fn requests_expected(allowed: f64, ratio: f64, alpha: f64) -> Option<u64> {
    let by_odds = (ratio > 0.0).then(|| (BAD_FOR_ODDS / ratio).ceil() as u64);
    let mut by_bound = requests_needed(allowed, 0, alpha);
    loop {
        let Some(requests) = by_bound.filter(|requests| by_odds.is_none_or(|odds| *requests < odds)) else {
            return by_odds;
        };
        let bad = (requests as f64 * ratio) as u64;
        let needed = requests_needed(allowed, bad, alpha);
        if needed == by_bound {
            return by_bound;
        }
        by_bound = needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_figures_that_are_promised() {
        let near = |allowed: f64, bad: u64, expected: f64| {
            let n = requests_needed(allowed, bad, 0.05).unwrap() as f64;
            assert!((n / expected - 1.0).abs() < 0.02, "{bad} errors: {n}");
        };
        near(0.01, 0, 370.0);
        near(0.01, 1, 650.0);
        near(0.01, 2, 860.0);
        near(0.001, 0, 3700.0);
        assert_eq!(requests_needed(0.0, 0, 0.05), None);
    }

    #[test]
    fn what_is_expected_takes_the_cheaper_way() {
        assert_eq!(requests_expected(0.01, 0.0, 0.05), requests_needed(0.01, 0, 0.05));
        assert_eq!(requests_expected(0.01, 0.0001, 0.05), requests_needed(0.01, 0, 0.05));
        assert_eq!(requests_expected(0.01, 0.003, 0.05), requests_needed(0.01, 1, 0.05));
        assert_eq!(requests_expected(0.01, 0.02, 0.05), Some(500), "by comparison alone");
        assert_eq!(requests_expected(0.0, 0.02, 0.05), Some(500));
        assert_eq!(requests_expected(0.0, 0.0, 0.05), None);
    }

    #[test]
    fn the_upper_bound_is_where_the_evidence_is_reached() {
        let bound = upper_bound(1000, 2, 0.05);
        assert!(ln_evidence_under(bound, 1000, 2) >= 20.0_f64.ln());
        assert!(ln_evidence_under(bound * 0.99, 1000, 2) < 20.0_f64.ln());
        assert!((upper_bound(0, 0, 0.05) - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn never_nan_and_more_good_requests_never_hurt(
            allowed in -1.0_f64..2.0, requests in 0_u64..1_000_000_000, bad in 0_u64..1_000_000_000,
        ) {
            let bad = bad.min(requests);
            let now = ln_evidence_under(allowed, requests, bad);
            prop_assert!(now.is_finite());
            prop_assert!(ln_evidence_under(allowed, requests + 1, bad) >= now - 1e-6 * (1.0 + now.abs()));
        }

        #[test]
        fn evidence_over_is_finite_and_a_martingale_too(
            allowed in 0.0_f64..1.0, requests in 0_u64..100_000, bad in 0_u64..100_000,
        ) {
            let bad = bad.min(requests);
            let now = ln_evidence_over(allowed, requests, bad);
            prop_assert!(now.is_finite());
            if requests > 0 && allowed > LEAST_ALLOWED {
                let error = ln_evidence_over(allowed, requests + 1, bad + 1);
                let good = ln_evidence_over(allowed, requests + 1, bad);
                let mean = allowed * (error - now).exp() + (1.0 - allowed) * (good - now).exp();
                prop_assert!((mean - 1.0).abs() < 1e-6, "{mean}");
            }
        }

        /// One step of the process has mean one when the rate is exactly the allowed one.
        #[test]
        fn the_evidence_is_a_martingale_on_the_boundary(allowed in 0.001_f64..0.5, requests in 0_u64..3000, bad in 0_u64..50) {
            let bad = bad.min(requests);
            let now = ln_evidence_under(allowed, requests, bad);
            let error = ln_evidence_under(allowed, requests + 1, bad + 1);
            let good = ln_evidence_under(allowed, requests + 1, bad);
            let mean = allowed * (error - now).exp() + (1.0 - allowed) * (good - now).exp();
            prop_assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }
}
