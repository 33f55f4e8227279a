//! The `notifications` service's process.
fn main() {}
