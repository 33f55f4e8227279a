//! Rules derived from landscapes, held against the programs that read them: promtool, amtool, Prometheus itself.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod judges;
mod landscapes;
mod objects;
mod reference;
mod refused;
mod routes;
mod rules;
