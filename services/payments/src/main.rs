//! The `payments` service's process.
fn main() {}
