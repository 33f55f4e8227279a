//! Alert rules: derived from the catalogue, linted, tested, compared with what runs.

pub mod programs;
pub mod rules;
pub mod test;

mod duration;
