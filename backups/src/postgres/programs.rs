//! The programs of PostgreSQL on this machine: where distributions put them, one folder a major version, and what is on
//! `PATH`. A dump needs those of the server's version or newer; nothing is installed by us.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::PostgresError;
use crate::process::{self, Launch};
use crate::threads::blocking;

/// The newest major version that is looked for in folders that are called after it.
const NEWEST: u32 = 99;
/// The oldest.
const OLDEST: u32 = 8;

/// The programs of one version, all in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    folder: PathBuf,
    /// The major version: 15 of 15.6.
    pub major: u32,
    /// The whole of it, such as `15.6`.
    pub version: String,
}

impl Installation {
    /// The folder with its programs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a program of it is.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// One that is nowhere.
    #[cfg(test)]
    pub(super) fn unknown() -> Self {
        Self {
            folder: PathBuf::from("/nowhere"),
            major: 15,
            version: "15".to_owned(),
        }
    }

    /// Whether it has a program.
    fn has(&self, name: &str) -> bool {
        self.program(name).is_file()
    }
}

/// The installation whose version is nearest to `best`, and not older than `at_least`, among those that have all the
/// programs that are `wanted`: the newer of it before an older. `configured` is the only folder that is looked into, if
/// one is.
pub async fn find(
    configured: Option<&Path>,
    wanted: &[&str],
    at_least: u32,
    best: u32,
) -> Result<Installation, PostgresError> {
    let installed = installed(configured, wanted).await?;
    let mut fitting: Vec<&Installation> = installed
        .iter()
        .filter(|installation| installation.major >= at_least && wanted.iter().all(|name| installation.has(name)))
        .collect();
    fitting.sort_by_key(|installation| (installation.major < best, installation.major.abs_diff(best)));
    if let Some(found) = fitting.first() {
        return Ok((*found).clone());
    }
    let found: BTreeSet<String> = installed
        .iter()
        .map(|installation| {
            let missing: Vec<&str> = wanted.iter().copied().filter(|name| !installation.has(name)).collect();
            let without = if missing.is_empty() {
                String::new()
            } else {
                format!(" without {}", missing.join(" and "))
            };
            format!("{} in {}{without}", installation.version, installation.folder.display())
        })
        .collect();
    let found = match (found.is_empty(), configured) {
        (false, _) => found.into_iter().collect::<Vec<_>>().join(", "),
        (true, Some(folder)) => format!("none in {}", folder.display()),
        (true, None) => "none, neither on PATH nor where distributions put them".to_owned(),
    };
    Err(PostgresError::NoPrograms {
        wanted: wanted.join(" and "),
        at_least,
        found,
        server: wanted.contains(&"postgres"),
    })
}

/// Every folder that has one of the programs, with its version.
async fn installed(configured: Option<&Path>, wanted: &[&str]) -> Result<Vec<Installation>, PostgresError> {
    let configured = configured.map(Path::to_path_buf);
    let names: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    let listing = blocking(move || match configured {
        Some(folder) => vec![folder],
        None => folders(),
    });
    let folders = listing.await.unwrap_or_default();
    let mut installed = Vec::new();
    for folder in folders {
        let Some(program) = names
            .iter()
            .map(|name| folder.join(name))
            .find(|program| program.is_file())
        else {
            continue;
        };
        if let Some((major, version)) = version(program).await {
            installed.push(Installation { folder, major, version });
        }
    }
    Ok(installed)
}

fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for major in (OLDEST..=NEWEST).rev() {
        for folder in [
            format!("/usr/lib/postgresql/{major}/bin"),
            format!("/usr/pgsql-{major}/bin"),
            format!("/usr/libexec/postgresql{major}"),
            format!("/opt/homebrew/opt/postgresql@{major}/bin"),
            format!("/usr/local/opt/postgresql@{major}/bin"),
        ] {
            folders.push(PathBuf::from(folder));
        }
    }
    folders.retain(|folder| folder.is_dir());
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Later, as what is on PATH may be a wrapper that chooses by itself.
    folders.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// What a program says of its version.
async fn version(program: PathBuf) -> Option<(u32, String)> {
    let launch = Launch {
        program,
        arguments: vec!["--version".into()],
        ..Launch::default()
    };
    let ended = process::run(launch, 1 << 10).await.ok()?;
    ended
        .status
        .success()
        .then(|| parse(&String::from_utf8_lossy(&ended.output)))?
}

/// `pg_dump (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)`, `postgres (PostgreSQL) 18beta1`.
fn parse(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        for (text, expected) in [
            (
                "pg_dump (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n",
                Some((15, "15.6")),
            ),
            ("postgres (PostgreSQL) 18beta1", Some((18, "18beta1"))),
            ("psql (PostgreSQL) 9.6.24", Some((9, "9.6.24"))),
            ("pg_dump (EnterpriseDB) 15.6", None),
            ("pg_dump (PostgreSQL) devel", None),
            ("", None),
        ] {
            let expected = expected.map(|(major, version)| (major, version.to_owned()));
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    fn fake(folder: &Path, name: &str, version: &str) {
        fs::create_dir_all(folder).expect("a folder");
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).expect("a script");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("our own file");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fake(folder.path(), "pg_dump", "14.2");
        let found = find(Some(folder.path()), &["pg_dump"], 13, 13)
            .await
            .expect("newer than needed");
        assert_eq!((found.major, found.version.as_str()), (14, "14.2"));
        let older = find(Some(folder.path()), &["pg_dump"], 15, 15)
            .await
            .expect_err("too old");
        assert!(
            older
                .to_string()
                .contains("pg_dump of PostgreSQL 15 or newer is needed, and there is 14.2 in"),
            "{older}"
        );
        let lacks = find(Some(folder.path()), &["pg_dump", "psql"], 14, 14)
            .await
            .expect_err("no psql");
        assert!(lacks.to_string().ends_with("without psql"), "{lacks}");
        let empty = find(Some(&folder.path().join("x")), &["psql"], 0, 14)
            .await
            .expect_err("nothing");
        assert!(empty.to_string().contains("and there is none in"), "{empty}");
    }
}
