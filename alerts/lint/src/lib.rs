//! Findings about rules and boards: what, why, and the fix. What is found in whole files is found in `alerts` and
//! `dashboards`.
