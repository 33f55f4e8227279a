//! The `identity` service's process.
fn main() {}
