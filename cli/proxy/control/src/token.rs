//! The canary token: proof that a request may ask for one version of a service. Not a session and not a login.
//!
//! Shape: `<service>:<version>:<expiry>:<mac>`, where `expiry` is a Unix time in seconds and `mac` the lower-case hex
//! HMAC-SHA256 of `opsctl-canary/v1\n<service>:<version>:<expiry>` under the proxy's secret: 32 random bytes, as
//! 64 hex digits in `proxy.secret` (mode 0600) in the proxy's state folder. It is good as header value and as cookie
//! value.

use std::io;
use std::path::Path;

use ring::hmac;

const CONTEXT: &str = "opsctl-canary/v1\n";

/// Reads a secret file.
///
/// # Errors
/// What the operating system says, and `InvalidData` when the file does not hold 64 hex digits.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let text = std::fs::read_to_string(path)?;
    match hex::decode(text.trim()) {
        Ok(secret) if secret.len() == 32 => Ok(secret),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the secret is not 64 hex digits",
        )),
    }
}

/// Signs a token that asks for `version` of `service` until `expires_unix_seconds`. Names must not hold a colon.
pub fn sign(secret: &[u8], service: &str, version: &str, expires_unix_seconds: u64) -> String {
    let claim = format!("{service}:{version}:{expires_unix_seconds}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mac = hmac::sign(&key, format!("{CONTEXT}{claim}").as_bytes());
    format!("{claim}:{}", hex::encode(mac.as_ref()))
}

/// Who a valid token speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The service.
    pub service: &'a str,
    /// The version asked for.
    pub version: &'a str,
}

/// Checks a token against the secret and the time; `None` when it is malformed, forged or expired.
pub fn verify<'a>(secret: &[u8], token: &'a str, now_unix_seconds: u64) -> Option<Claim<'a>> {
    let (claim, mac) = token.rsplit_once(':')?;
    let (names, expiry) = claim.rsplit_once(':')?;
    let (service, version) = names.split_once(':')?;
    let expiry: u64 = expiry.parse().ok()?;
    let mac = hex::decode(mac).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, format!("{CONTEXT}{claim}").as_bytes(), &mac).ok()?;
    (expiry > now_unix_seconds).then_some(Claim { service, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_and_for_its_secret_only() {
        let token = sign(b"secret", "orders", "v2", 1000);
        let claim = verify(b"secret", &token, 999).expect("valid");
        assert_eq!((claim.service, claim.version), ("orders", "v2"));
        assert_eq!(verify(b"secret", &token, 1000), None, "expired");
        assert_eq!(verify(b"other", &token, 999), None, "other secret");
        let forged = token.replace(":v2:", ":v3:");
        assert_eq!(verify(b"secret", &forged, 999), None, "changed version");
        for bad in ["", ":", "a:b", "orders:v2:1000:", "orders:v2:1000:zz", "::::"] {
            assert_eq!(verify(b"secret", bad, 0), None, "{bad:?}");
        }
    }
}
