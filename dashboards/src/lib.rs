//! Grafana boards: derived from the catalogue, linted, pushed, drawn.
//!
//! [`model`] is what a board is when we write one: Grafana's classic model, schema version 42, and its two envelopes.
//! [`boards`] are our own, made from the landscape and the catalogue; [`provision`] lays them out as files that a Grafana
//! reads at its start. [`read`] is what a board is when somebody else wrote it, of any age, and [`check`] says what is
//! wrong with it. [`push`] brings boards to a Grafana, after a plan. Nothing here prints, prompts or reads the environment.

pub mod boards;
pub mod check;
pub mod model;
pub mod provision;
pub mod push;
pub mod read;
