//! Canary releases: steps, traffic shares, and a verdict on evidence.
