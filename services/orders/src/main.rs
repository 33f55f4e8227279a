//! The `orders` service's process.
fn main() {}
