//! Whole processes beside one another: each of them once a round, another one first in each, and of all rounds the
//! median. What they do is the areas' matter.

use std::process::Command;

use anyhow::Result;

use super::process::{Cost, cost_ending_in};

/// One of those that are compared.
pub struct Side<'a> {
    /// What is run, as the table names it.
    pub who: String,
    /// The code that it ends with.
    pub ends: i32,
    /// Makes the command.
    pub command: Box<dyn Fn() -> Command + 'a>,
}

impl<'a> Side<'a> {
    /// `who` is run by `command` and ends with the code `ends`.
    pub fn new(who: &str, ends: i32, command: impl Fn() -> Command + 'a) -> Self {
        Self {
            who: who.to_owned(),
            ends,
            command: Box::new(command),
        }
    }
}

/// The medians of each side, in their order.
pub async fn medians(sides: &[Side<'_>], rounds: usize) -> Result<Vec<Cost>> {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let one = (round + turn) % sides.len();
            let side = &sides[one];
            let cost = cost_ending_in(side.ends, (side.command)()).await?;
            println!("round {}, {}: {cost:.3?}", round + 1, side.who);
            costs[one].push(cost);
        }
    }
    let of = |costs: &Vec<Cost>, figure: fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
    let medians = costs.iter().map(|costs| Cost {
        wall: of(costs, |cost| cost.wall),
        cpu: of(costs, |cost| cost.cpu),
        mib: of(costs, |cost| cost.mib),
    });
    Ok(medians.collect())
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
