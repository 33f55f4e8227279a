//! Real servers for tests: found, built and started on free loopback ports.
