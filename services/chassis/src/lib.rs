//! What every reference service needs around its own logic: addresses, version label, injected faults, draining.
