//! The project's tasks, run as `cargo xtask TASK`.
fn main() {}
