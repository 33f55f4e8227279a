//! What services export, and what is promised of them: what rules and boards are derived from and checked against.

pub mod landscape;
