//! What every reference service needs around its own logic: addresses, version label, injected faults, a SQLite file,
//! listeners that drain. Retries, logs, metrics and probes are not here: a service takes them from `resilience`,
//! `telemetry` and `health` itself, as any user's service would.

pub mod private;
pub mod sqlite;
