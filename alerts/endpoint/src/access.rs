//! What lets us ask a server, and where it is kept. Nobody is shown it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Who asks. Secrets are never shown.
#[derive(Clone, Default)]
pub enum Access {
    /// Anybody may.
    #[default]
    Open,
    /// `Authorization: Bearer`.
    Bearer(String),
    /// `Authorization: Basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Bearer(_) => "Bearer",
            Self::Basic { .. } => "Basic",
        })
    }
}

impl Access {
    /// What a folder holds, as a Secret is mounted: `token`, or `username` and `password`. One without any is open.
    ///
    /// # Errors
    /// Why a file that is there cannot be read.
    pub fn of_folder(folder: &Path) -> std::io::Result<Self> {
        let read = |name: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(match (read("token")?, read("username")?, read("password")?) {
            (Some(token), _, _) => Self::Bearer(token),
            (None, Some(username), Some(password)) => Self::Basic { username, password },
            _ => Self::Open,
        })
    }

    /// The header `Authorization`, and the words that a server may say again and nobody may be shown.
    pub(crate) fn header(&self) -> Option<(String, Vec<String>)> {
        let (header, mut secrets) = match self {
            Self::Open => return None,
            Self::Bearer(token) => (format!("Bearer {}", token.trim()), vec![token.trim().to_owned()]),
            Self::Basic { username, password } => {
                let both = STANDARD.encode(format!("{username}:{password}"));
                (format!("Basic {both}"), vec![both, password.trim().to_owned()])
            }
        };
        secrets.retain(|secret| !secret.is_empty());
        Some((header, secrets))
    }

    /// What a server that refuses it refuses.
    pub(crate) const fn sent(&self) -> &'static str {
        match self {
            Self::Open => "to answer without credentials",
            Self::Bearer(_) => "the token",
            Self::Basic { .. } => "the user and the password",
        }
    }
}
