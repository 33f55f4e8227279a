//! For tests of services that use these policies; behind the feature `testing`, which no production build turns on.

/// Lets this process read the system's clock, as a build without the feature `testing` does. Without this call the
/// feature makes all policies read tokio's clock, which a test can pause and advance.
///
/// For benchmarks and for tests that count allocations.
pub fn production_clock() {
    crate::clock::use_production();
}
