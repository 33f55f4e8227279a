//! A project of opsctl whose one datastore is a cluster that is saved as a whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use peers::servers::MinIo;

/// The bucket of repositories in S3.
pub(super) const BUCKET: &str = "backups";
/// How much of the log may be lost: what is not durable yet becomes so twice as often.
const RPO: &str = "10s";

/// Where a repository lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Store<'a> {
    /// In the project's folder.
    Folder,
    /// In the bucket at this URL.
    Bucket(&'a str),
}

/// A folder with a configuration.
pub(super) struct Project {
    opsctl: PathBuf,
    folder: PathBuf,
}

impl Project {
    /// Makes the project in `folder`, for the server at `url`. `programs` is where a restore finds those of PostgreSQL, if
    /// that is not the usual place.
    pub(super) fn make(
        opsctl: &Path,
        folder: PathBuf,
        url: &str,
        store: Store<'_>,
        programs: Option<&Path>,
    ) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let store = match store {
            Store::Folder => "store = \"file:repo\"".to_owned(),
            Store::Bucket(url) => format!(
                "store = \"s3://{BUCKET}/opsctl\"\nendpoint = \"{url}\"\n\
                 credentials = {{ access_key = {{ file = \"access\" }}, secret_key = {{ file = \"secret\" }} }}"
            ),
        };
        let programs = programs.map_or_else(String::new, |folder| {
            format!("programs = {:?}\n", folder.display().to_string())
        });
        let config = format!(
            "version = 1\ndefault_env = \"local\"\n[env.local]\nplatform = \"local\"\nrepository = \"here\"\n\
             [repository.here]\n{store}\npassword = {{ file = \"password\" }}\n\
             [datastore.pg]\nkind = \"postgres\"\ndsn = {{ file = \"dsn\" }}\n{programs}\
             objectives = {{ rpo = \"{RPO}\" }}\nbackup = {{ method = \"physical\" }}\n"
        );
        for (name, text) in [
            ("opsctl.toml", config.as_str()),
            ("password", "a password for a measurement"),
            ("dsn", url),
            ("access", MinIo::ACCESS_KEY),
            ("secret", MinIo::SECRET_KEY),
        ] {
            let file = folder.join(name);
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        }
        let opsctl = opsctl.to_owned();
        Ok(Self { opsctl, folder })
    }

    /// Where its repository lies, if that is a folder.
    pub(super) fn repository(&self) -> PathBuf {
        self.folder.join("repo")
    }

    /// A base backup.
    pub(super) fn backup(&self) -> Command {
        self.command(&["backup", "pg", "--json"])
    }

    /// Receives the log until it is told to end.
    pub(super) fn follow(&self) -> Command {
        self.command(&["backup", "pg", "--follow", "--json"])
    }

    /// The last state there is, into `target`.
    pub(super) fn restore(&self, target: &Path) -> Command {
        let mut command = self.command(&["restore", "pg", "--json", "--into"]);
        command.arg(target);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.opsctl);
        command.args(arguments).current_dir(&self.folder);
        command
    }
}
