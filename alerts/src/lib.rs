//! Alert rules: derived from the catalogue, linted, tested, compared with what runs.

pub mod check;
pub mod kind;
pub mod live;
pub mod programs;
pub mod render;
pub mod routing;
pub mod rules;
pub mod test;

mod bounded;
mod duration;
