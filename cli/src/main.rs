//! The `opsctl` command line.
fn main() {}
