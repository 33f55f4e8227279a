//! Canary releases: steps, traffic shares, and a verdict on evidence.
//! It does not route traffic or start processes itself; that is the platform's.

pub mod analysis;
