//! Access tokens: JWT (RFC 7519) signed with ES256 (RFC 7518). Which key signs is `keys`' matter, who gets one `http`'s.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use uuid::Uuid;

use crate::keys::Key;

/// Who issued the token, in `iss`.
pub const ISSUER: &str = "identity";

#[derive(Debug, Serialize)]
struct Claims {
    iss: &'static str,
    sub: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// A token for `user`, signed with `key`, that ends `lifetime` after `now` (in whole seconds).
pub fn issue(key: &Key, user: Uuid, now: Timestamp, lifetime: Duration) -> Result<String, jsonwebtoken::errors::Error> {
    let header = Header {
        kid: Some(key.id.clone()),
        ..Header::new(Algorithm::ES256)
    };
    let claims = Claims {
        iss: ISSUER,
        sub: user.to_string(),
        iat: now.as_second(),
        exp: now.as_second().saturating_add_unsigned(lifetime.as_secs()),
        jti: Uuid::new_v4().to_string(),
    };
    encode(&header, &claims, &EncodingKey::from_ec_der(&key.secret))
}
