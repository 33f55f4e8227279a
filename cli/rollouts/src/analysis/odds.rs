//! E-processes about the odds ratio of canary to stable: evidence that may be looked at after every interval.
//! What to conclude from the evidence is not decided here.
//!
//! Per interval the likelihood ratio of [`super::hypergeometric`] is multiplied up for each odds ratio of a grid, and the
//! products are averaged. Under the null the average has mean at most one at every stopping time (Ville), so that `e >= 1/α`
//! errs at most `α` of the time however often one looks: Lindon & Malek 2022; Netflix, arXiv 2205.14762. For a composite null
//! on one side the boundary is the worst case, since the family has a monotone likelihood ratio.

use super::Interval;
use super::hypergeometric::{Margins, ln_likelihood_ratios};
use serde::{Deserialize, Serialize};

/// Odds ratio that a canary is allowed before it counts as worse: rates that merely wander stay below it.
pub const FAIL_NULL: f64 = 1.5;
/// Odds ratio that has to be disproved before "not worse" is believed.
pub const PASS_NULL: f64 = 2.0;
/// Odds ratios that the fail test bets on.
const FAIL_GRID: [f64; 8] = [2.0, 2.75, 4.0, 6.0, 10.0, 18.0, 35.0, 70.0];
/// Odds ratios that the pass test bets on.
const PASS_GRID: [f64; 6] = [0.1, 0.3, 0.6, 0.9, 1.1, 1.35];

/// One test: its null, its grid and the logarithm of each product so far. A few floats; what a resumed judge needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OddsProcess {
    /// The odds ratio on the boundary of the null.
    null: f64,
    /// The odds ratios bet on, all on the other side of the null.
    grid: Vec<f64>,
    /// `ln` of the product of likelihood ratios, one for each of the grid.
    ln_products: Vec<f64>,
}

impl OddsProcess {
    /// Evidence that the canary is worse than odds ratio 1.5.
    pub fn worse() -> Self {
        Self::new(FAIL_NULL, &FAIL_GRID)
    }

    /// Evidence that the canary is better than odds ratio 2.
    pub fn not_twice_as_bad() -> Self {
        Self::new(PASS_NULL, &PASS_GRID)
    }

    fn new(null: f64, grid: &[f64]) -> Self {
        Self {
            null,
            grid: grid.to_vec(),
            ln_products: vec![0.0; grid.len()],
        }
    }

    /// Takes in one interval. An interval in which only one arm had requests, or nobody an error, changes nothing.
    pub fn add(&mut self, interval: Interval) {
        let margins = Margins {
            canary: interval.canary.requests,
            stable: interval.stable.requests,
            errors: interval.canary.bad + interval.stable.bad,
        };
        let ratios = ln_likelihood_ratios(margins, interval.canary.bad, self.null, &self.grid);
        for (product, ratio) in self.ln_products.iter_mut().zip(ratios) {
            *product += ratio;
        }
    }

    /// `ln e`: the logarithm of the mean of the products. Always finite.
    pub fn ln_e(&self) -> f64 {
        let top = self.ln_products.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = self.ln_products.iter().map(|l| (l - top).exp()).sum();
        top + (sum / self.ln_products.len() as f64).ln()
    }

    /// True when a stored state has the shape that this version writes and only finite numbers.
    pub(super) fn is_sound(&self) -> bool {
        !self.grid.is_empty()
            && self.grid.len() == self.ln_products.len()
            && self.null > 0.0
            && self.grid.iter().all(|psi| psi.is_finite() && *psi > 0.0)
            && self.ln_products.iter().all(|l| l.is_finite())
    }
}
