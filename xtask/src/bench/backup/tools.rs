//! The programs under measurement, and how each is told where to keep what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use peers::servers::MinIo;

use crate::bench::program;
use crate::step;

/// The password of every repository.
pub(super) const PASSWORD: &str = "a password for a measurement";
/// The bucket of repositories in S3.
pub(super) const BUCKET: &str = "backups";

/// Where a repository lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Store<'a> {
    /// In `scratch/repo`.
    Folder,
    /// In the bucket at this URL, below the tool's name.
    Bucket(&'a str),
}

/// A program under measurement. Everything happens in a scratch folder of its own.
pub(super) trait Tool {
    /// As the table names it.
    fn name(&self) -> &'static str;
    /// Makes everything ready to back `data` up into a fresh repository.
    fn prepare(&self, scratch: &Path, store: Store<'_>, data: &Path) -> Result<()>;
    /// A command that backs `data` up.
    fn backup(&self, scratch: &Path, data: &Path) -> Command;
    /// A command that restores the latest snapshot into `scratch/restored`.
    fn restore(&self, scratch: &Path) -> Command;
}

/// Ours.
pub(super) struct Opsctl(PathBuf);
/// Debian's restic.
pub(super) struct Restic(PathBuf);
/// Rustic with its own command line.
pub(super) struct Rustic(PathBuf);

impl Opsctl {
    /// As it was built for release.
    pub(super) fn built() -> Result<Self> {
        program::build(&["opsctl"])?;
        Ok(Self(program::release("opsctl")?))
    }
}

impl Restic {
    pub(super) fn installed() -> Result<Self> {
        program::peer("restic").map(Self)
    }

    pub(super) fn version(&self) -> Result<String> {
        let said = step::output(Command::new(&self.0).arg("version").current_dir("/"))?;
        Ok(said.trim().to_owned())
    }

    /// Any verb of it, for the repository in `scratch`.
    pub(super) fn command(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.0);
        let location = fs::read_to_string(scratch.join("location"));
        command
            .current_dir(scratch)
            .env("RESTIC_REPOSITORY", location.unwrap_or_else(|_| "repo".to_owned()))
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("AWS_ACCESS_KEY_ID", MinIo::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", MinIo::SECRET_KEY)
            .args(["--no-cache", "--quiet"]);
        command
    }
}

impl Rustic {
    pub(super) fn installed() -> Result<Self> {
        program::peer("rustic").map(Self)
    }

    pub(super) fn version(&self) -> Result<String> {
        let said = step::output(Command::new(&self.0).arg("--version").current_dir("/"))?;
        Ok(said.trim().to_owned())
    }

    fn command(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.0);
        // Its settings lie in the folder that it is started in; it looks for others at home.
        command
            .current_dir(scratch)
            .env("HOME", scratch)
            .args(["--no-progress", "--log-level", "error", "--no-cache"]);
        command
    }
}

impl Tool for Opsctl {
    fn name(&self) -> &'static str {
        "opsctl"
    }

    fn prepare(&self, scratch: &Path, store: Store<'_>, data: &Path) -> Result<()> {
        let store = match store {
            Store::Folder => "store = \"file:repo\"".to_owned(),
            Store::Bucket(url) => format!(
                "store = \"s3://{BUCKET}/opsctl\"\nendpoint = \"{url}\"\n\
                 credentials = {{ access_key = {{ file = \"access\" }}, secret_key = {{ file = \"secret\" }} }}"
            ),
        };
        let config = format!(
            "version = 1\ndefault_env = \"local\"\n[env.local]\nplatform = \"local\"\nrepository = \"here\"\n\
             [repository.here]\n{store}\npassword = {{ file = \"password\" }}\n\
             [datastore.data]\nkind = \"files\"\npath = {:?}\n",
            data.display().to_string()
        );
        private(&scratch.join("opsctl.toml"), &config)?;
        private(&scratch.join("password"), PASSWORD)?;
        private(&scratch.join("access"), MinIo::ACCESS_KEY)?;
        private(&scratch.join("secret"), MinIo::SECRET_KEY)
    }

    fn backup(&self, scratch: &Path, _data: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["backup", "data", "--json"]).current_dir(scratch);
        command
    }

    fn restore(&self, scratch: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command
            .args(["restore", "data", "--json", "--into", "restored"])
            .current_dir(scratch);
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn prepare(&self, scratch: &Path, store: Store<'_>, _data: &Path) -> Result<()> {
        if let Store::Bucket(url) = store {
            fs::write(scratch.join("location"), format!("s3:{url}/{BUCKET}/restic"))?;
        }
        let mut init = self.command(scratch);
        step::run(init.args(["init", "--repository-version", "2"]).stdout(Stdio::null()))
    }

    fn backup(&self, scratch: &Path, data: &Path) -> Command {
        let mut command = self.command(scratch);
        command.arg("backup").arg(data);
        command
    }

    fn restore(&self, scratch: &Path) -> Command {
        let mut command = self.command(scratch);
        command.args(["restore", "latest", "--target", "restored"]);
        command
    }
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn prepare(&self, scratch: &Path, store: Store<'_>, _data: &Path) -> Result<()> {
        let repository = match store {
            Store::Folder => "repository = \"repo\"\n".to_owned(),
            Store::Bucket(_) => "repository = \"opendal:s3\"\n".to_owned(),
        };
        let options = match store {
            Store::Folder => String::new(),
            Store::Bucket(url) => format!(
                "[repository.options]\nendpoint = \"{url}\"\nregion = \"us-east-1\"\nbucket = \"{BUCKET}\"\nroot = \"/rustic\"\n\
                 access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
                MinIo::ACCESS_KEY,
                MinIo::SECRET_KEY
            ),
        };
        let config = format!("[repository]\n{repository}password = \"{PASSWORD}\"\n{options}");
        private(&scratch.join("rustic.toml"), &config)?;
        let mut init = self.command(scratch);
        step::run(init.arg("init").stdout(Stdio::null()))
    }

    fn backup(&self, scratch: &Path, data: &Path) -> Command {
        let mut command = self.command(scratch);
        command.arg("backup").arg(data);
        command
    }

    fn restore(&self, scratch: &Path) -> Command {
        let mut command = self.command(scratch);
        command.args(["restore", "latest", "restored"]);
        command
    }
}

/// A file that nobody else may read, as passwords must be.
fn private(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}
