//! Password hashes: scrypt (RFC 7914), off the runtime, so many at a time as there are processors. Which passwords are
//! accepted is `account`'s matter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use resilience::Bulkhead;
use scrypt::Params;

/// log2 N, r, p.
type Cost = (u8, u32, u32);

/// 16 MiB and about 50 ms each. One of the settings of equal strength in OWASP's Password Storage Cheat
/// Sheet; this one because a small server should survive many logins at once.
const COST: Cost = (14, 8, 5);
/// Bytes of salt, and of hash.
const SALT: usize = 16;
const HASH: usize = 32;
/// Logins and registrations that may wait for a processor, for each that runs.
const QUEUE: usize = 16;

/// Makes and checks hashes.
#[derive(Debug, Clone)]
pub struct Hasher {
    bulkhead: Bulkhead,
    dummy: std::sync::Arc<str>,
}

/// Why there is no hash or no verdict.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// So many are waiting that it would take seconds.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// A stored hash that cannot be read, or a system without randomness.
    #[error("a password cannot be hashed: {0}")]
    Broken(&'static str),
}

impl Hasher {
    /// For `processors` at a time.
    pub fn new(processors: usize) -> Result<Self, resilience::BuildError> {
        let processors = processors.max(1);
        // A hash of the right form that no password has: its bytes are no output of scrypt anybody knows an input for.
        let dummy = encode(COST, &[0; SALT], &[0; HASH]).into();
        Ok(Self {
            bulkhead: Bulkhead::new("passwords", processors, processors * QUEUE)?,
            dummy,
        })
    }

    /// What keeps too many from being checked at one time.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The hash of a new password: `$scrypt$ln=14,r=8,p=5$<salt>$<hash>`.
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        let mut salt = [0; SALT];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut salt)
            .map_err(|_| HashError::Broken("the system gives no randomness"))?;
        let hash = self.derive(password, COST, salt.to_vec()).await?;
        Ok(encode(COST, &salt, &hash))
    }

    /// Whether `password` is the one of `stored`. Without a stored hash it works as long, and says no.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, HashError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.to_string());
        let (cost, salt, wanted) = decode(&stored).ok_or(HashError::Broken("a stored hash has an unknown form"))?;
        let found = self.derive(password, cost, salt).await?;
        Ok(same(&found, &wanted) && known)
    }

    async fn derive(&self, password: String, cost: Cost, salt: Vec<u8>) -> Result<Vec<u8>, HashError> {
        let place = self.bulkhead.enter().await.map_err(|_| HashError::Overloaded)?;
        let work = move || {
            // Held until the work is done, also when nobody waits for it any more.
            let _place = place;
            let params =
                Params::new(cost.0, cost.1, cost.2, HASH).map_err(|_| HashError::Broken("its cost is invalid"))?;
            let mut hash = vec![0; HASH];
            scrypt::scrypt(password.as_bytes(), &salt, &params, &mut hash)
                .map_err(|_| HashError::Broken("its length is invalid"))?;
            Ok(hash)
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or(Err(HashError::Broken("hashing failed in an unforeseen way")))
    }
}

fn encode((log_n, r, p): Cost, salt: &[u8], hash: &[u8]) -> String {
    format!(
        "$scrypt$ln={log_n},r={r},p={p}${}${}",
        BASE64.encode(salt),
        BASE64.encode(hash)
    )
}

/// Cost, salt and hash of a stored text. The cost is bounded: a forged row must not take gigabytes.
fn decode(text: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let mut parts = text.strip_prefix("$scrypt$")?.split('$');
    let (cost, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut fields = cost.split(',');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (log_n, r, p) = (field("ln=")?, field("r=")?, field("p=")?);
    let bounded = log_n <= 18 && r <= 8 && p <= 16;
    let hash = BASE64.decode(hash).ok()?;
    (bounded && parts.next().is_none() && hash.len() == HASH).then_some((
        (u8::try_from(log_n).ok()?, r, p),
        BASE64.decode(salt).ok()?,
        hash,
    ))
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let hasher = Hasher::new(2).unwrap();
        let stored = hasher.hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$scrypt$ln=14,r=8,p=5$") && !stored.contains("horse"));
        assert_ne!(
            stored,
            hasher.hash("correct horse".into()).await.unwrap(),
            "each has its own salt"
        );
        assert!(
            hasher
                .verify("correct horse".into(), Some(stored.clone()))
                .await
                .unwrap()
        );
        assert!(!hasher.verify("correct horsf".into(), Some(stored)).await.unwrap());
        assert!(!hasher.verify("correct horse".into(), None).await.unwrap());
    }

    #[test]
    fn the_function_is_the_one_of_the_rfc() {
        // RFC 7914 section 12, third vector, shortened to our length: scrypt's output of 64 bytes begins with it only
        // when both lengths are derived alike, which PBKDF2 guarantees.
        let mut hash = [0; 32];
        scrypt::scrypt(
            b"pleaseletmein",
            b"SodiumChloride",
            &Params::new(14, 8, 1, 32).unwrap(),
            &mut hash,
        )
        .unwrap();
        assert_eq!(
            hash[..8],
            [0x70, 0x23, 0xbd, 0xcb, 0x3a, 0xfd, 0x73, 0x48],
            "not the vector's first bytes"
        );
    }

    #[tokio::test]
    async fn a_stored_hash_of_another_form_is_no_match_but_an_error() {
        let hasher = Hasher::new(1).unwrap();
        for stored in [
            "",
            "plain",
            "$scrypt$ln=30,r=8,p=1$AAAA$AAAA",
            "$scrypt$ln=14,r=8,p=5$!$!",
        ] {
            assert!(
                matches!(
                    hasher.verify("x".into(), Some(stored.into())).await,
                    Err(HashError::Broken(_))
                ),
                "{stored}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn too_many_at_once_are_refused_not_queued_for_ever() {
        let hasher = Hasher::new(1).unwrap();
        let tasks: Vec<_> = (0..60)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.verify("x".into(), None).await })
            })
            .collect();
        let (mut done, mut refused) = (0, 0);
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => done += 1,
                Err(HashError::Overloaded) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(done >= 17 && refused > 0, "{done} done, {refused} refused");
    }
}
