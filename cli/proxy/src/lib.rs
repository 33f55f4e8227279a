//! The local traffic proxy: balancing, weights, faults with a time to live, counters.
