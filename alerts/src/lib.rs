//! Alert rules: derived from the catalogue, linted, tested, compared with what runs.

pub mod check;
pub mod rules;
