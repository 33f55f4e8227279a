//! Calls to the service as its clients make them, for all of its tests. No test here.

use chassis::trial::{Instance, Reply};
use serde_json::json;

pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_identity");

/// What is sent to `/register` and `/login`.
pub(crate) fn credentials(email: &str, password: &str) -> String {
    json!({"email": email, "password": password}).to_string()
}

pub(crate) async fn login(service: &Instance, email: &str, password: &str) -> Reply {
    service.post("/login", &credentials(email, password)).await.unwrap()
}
