//! Fisher's noncentral hypergeometric distribution, in logarithms: the law of "how many of the errors are the canary's".
//! It is not a random generator and knows nothing of canaries or intervals.
//!
//! Of `m` errors among `n_c` canary and `n_b` stable requests, the canary's count `X` has, given the odds ratio ψ,
//! `P(X = x) = C(n_c, x) C(n_b, m - x) ψ^x / Z(ψ)` (Fisher 1935; McCullagh & Nelder, "Generalized Linear Models", 7.3).
//! The common error rate has vanished from it, which is why a shared outage proves nothing against a canary.

/// Terms smaller than this share of the largest one no longer change a sum of doubles.
const NEGLIGIBLE: f64 = 1e-18;

/// One two-by-two table whose margins are fixed: requests of both arms and their errors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Margins {
    /// Requests of the canary.
    pub(crate) canary: u64,
    /// Requests of the stable version.
    pub(crate) stable: u64,
    /// Errors of both; never more than `canary + stable`.
    pub(crate) errors: u64,
}

impl Margins {
    /// Smallest and largest number of errors that the canary can have.
    pub(crate) fn support(self) -> (u64, u64) {
        (self.errors.saturating_sub(self.stable), self.errors.min(self.canary))
    }

    /// `P(x + 1) / P(x)` without the factor ψ.
    fn ratio(self, x: u64) -> f64 {
        let up = (self.canary - x) as f64 * (self.errors - x) as f64;
        let down = (x + 1) as f64 * ((self.stable + x + 1) - self.errors) as f64;
        up / down
    }

    /// `ln(C(n_c, x) C(n_b, m - x))`.
    fn ln_ways(self, x: u64) -> f64 {
        ln_choose(self.canary, x) + ln_choose(self.stable, self.errors - x)
    }

    /// `ln Z(ψ)`, summed outwards from the mode, so that nothing overflows and no term that matters is lost.
    fn ln_normaliser(self, psi: f64) -> f64 {
        let (low, high) = self.support();
        let mode = self.mode(psi);
        let mut sum = 1.0;
        let mut term = 1.0;
        for x in mode..high {
            term *= self.ratio(x) * psi;
            sum += term;
            if term < NEGLIGIBLE {
                break;
            }
        }
        term = 1.0;
        for x in (low..mode).rev() {
            term /= self.ratio(x) * psi;
            sum += term;
            if term < NEGLIGIBLE {
                break;
            }
        }
        self.ln_ways(mode) + mode as f64 * psi.ln() + sum.ln()
    }

    /// The likeliest value: terms rise while their ratio is at least one, and the ratios only fall.
    fn mode(self, psi: f64) -> u64 {
        let (mut low, mut high) = self.support();
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ratio(middle) * psi >= 1.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// `ln` of the likelihood ratios of each odds ratio of `grid` against `psi0` when the canary has `x` of the errors.
///
/// `x` outside the support is moved to its nearest end, so the results are always finite.
pub(crate) fn ln_likelihood_ratios(margins: Margins, x: u64, psi0: f64, grid: &[f64]) -> impl Iterator<Item = f64> {
    let (low, high) = margins.support();
    let certain = low == high;
    let x = x.clamp(low, high) as f64;
    let null = if certain { 0.0 } else { margins.ln_normaliser(psi0) };
    grid.iter().map(move |psi| {
        if certain {
            return 0.0;
        }
        x * (psi.ln() - psi0.ln()) - margins.ln_normaliser(*psi) + null
    })
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// `ln n!`: exact sums where Stirling's series is weak, the series elsewhere (error below 1e-13 of the result).
fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let n = n as f64;
    let n2 = n * n;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n * n2)
        + 1.0 / (1260.0 * n * n2 * n2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ln_likelihood_ratio(margins: Margins, x: u64, psi: f64, psi0: f64) -> f64 {
        ln_likelihood_ratios(margins, x, psi0, &[psi]).next().unwrap()
    }

    fn brute(margins: Margins, psi: f64) -> f64 {
        let (low, high) = margins.support();
        let terms: Vec<f64> = (low..=high).map(|x| margins.ln_ways(x) + x as f64 * psi.ln()).collect();
        let top = terms.iter().copied().fold(f64::MIN, f64::max);
        top + terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln()
    }

    #[test]
    fn factorials_agree_where_sum_and_series_meet() {
        let exact: f64 = (2..=40_u32).map(|i| f64::from(i).ln()).sum();
        assert!((ln_factorial(40) - exact).abs() < 1e-10);
    }

    #[test]
    fn one_table_by_hand() {
        // 2 canary and 2 stable requests, 2 errors: ways are 1, 4, 1; at ψ = 3 the weights are 1, 12, 9.
        let margins = Margins {
            canary: 2,
            stable: 2,
            errors: 2,
        };
        assert!((margins.ln_normaliser(3.0) - 22.0_f64.ln()).abs() < 1e-12);
        let ratio = ln_likelihood_ratio(margins, 2, 3.0, 1.0).exp();
        assert!((ratio - (9.0 / 22.0) / (1.0 / 6.0)).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn summing_from_the_mode_equals_summing_everything(
            canary in 0_u64..400, stable in 0_u64..2000, share in 0.0_f64..=1.0, psi in 0.05_f64..60.0,
        ) {
            let errors = ((canary + stable) as f64 * share) as u64;
            let margins = Margins { canary, stable, errors };
            let (a, b) = (margins.ln_normaliser(psi), brute(margins, psi));
            prop_assert!((a - b).abs() < 1e-8 * (1.0 + b.abs()), "{a} {b}");
        }

        /// The mean of the likelihood ratio under the null is one: what makes the product an e-process.
        #[test]
        fn the_ratio_has_mean_one_under_the_null(
            canary in 1_u64..60, stable in 1_u64..300, errors in 0_u64..80, psi in 0.1_f64..60.0, psi0 in 0.5_f64..3.0,
        ) {
            let margins = Margins { canary, stable, errors: errors.min(canary + stable) };
            let (low, high) = margins.support();
            let z = margins.ln_normaliser(psi0);
            let mean: f64 = (low..=high)
                .map(|x| {
                    let probability = margins.ln_ways(x) + x as f64 * psi0.ln() - z;
                    (probability + ln_likelihood_ratio(margins, x, psi, psi0)).exp()
                })
                .sum();
            prop_assert!((mean - 1.0).abs() < 1e-8, "{mean}");
        }

        #[test]
        fn huge_tables_stay_finite(
            canary in 0_u64..3_000_000, stable in 0_u64..30_000_000, share in 0.0_f64..=1.0, part in 0.0_f64..=1.0,
        ) {
            let errors = ((canary + stable) as f64 * share) as u64;
            let margins = Margins { canary, stable, errors };
            let (low, high) = margins.support();
            let x = low + ((high - low) as f64 * part) as u64;
            prop_assert!(ln_likelihood_ratio(margins, x, 50.0, 1.5).is_finite());
        }
    }
}
