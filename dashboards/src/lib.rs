//! Grafana boards: derived from the catalogue, linted, pushed, drawn.

pub mod draw;
