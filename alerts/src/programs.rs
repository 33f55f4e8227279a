//! Where the programs are that judge rules and routes: promtool, Alertmanager, amtool. Finds them; runs nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A program of Prometheus' family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Evaluates rules.
    Promtool,
    /// Routes alerts.
    Alertmanager,
}

impl Program {
    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promtool => "promtool",
            Self::Alertmanager => "alertmanager",
        }
    }

    /// What it is part of, as packages call it.
    fn package(self) -> &'static str {
        match self {
            Self::Promtool => "prometheus",
            Self::Alertmanager => "prometheus-alertmanager",
        }
    }

    fn project(self) -> &'static str {
        match self {
            Self::Promtool => "prometheus",
            Self::Alertmanager => "alertmanager",
        }
    }
}

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is in none of the places.
    #[error(
        "{} is not installed: it is neither on PATH nor built here; it comes with `apt install {}` or from \
         https://github.com/prometheus/{}/releases, and may stand anywhere when its path is configured",
        .0.name(), .0.package(), .0.project()
    )]
    Missing(Program),
    /// The path that was configured leads to no file that can be run.
    #[error("`{}`, configured as {}, is no file", .path.display(), .program.name())]
    Configured {
        /// Which program.
        program: Program,
        /// Where it should be.
        path: PathBuf,
    },
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `PATH`.
    path: Option<OsString>,
    /// The folder with what was built for tests: `NAME-VERSION/PROGRAM`.
    built: Option<PathBuf>,
}

impl Places {
    /// `PATH`, and what `cargo xtask test --install` has built for this user.
    pub fn from_env() -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        Self {
            path: std::env::var_os("PATH"),
            built: cache.map(|cache| cache.join("opsctl/peers")),
        }
    }

    /// These folders and no others.
    pub fn new(path: Option<OsString>, built: Option<PathBuf>) -> Self {
        Self { path, built }
    }

    /// The program: the configured one, else the first on `PATH`, else the one that was built.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn find(&self, program: Program, configured: Option<&Path>) -> Result<PathBuf, ProgramError> {
        if let Some(path) = configured {
            return if path.is_file() {
                Ok(path.to_owned())
            } else {
                Err(ProgramError::Configured {
                    program,
                    path: path.to_owned(),
                })
            };
        }
        let on_path = self.path.iter().flat_map(std::env::split_paths);
        let built = self.built.iter().flat_map(|folder| {
            let prefix = format!("{}-", program.project());
            let mut versions: Vec<PathBuf> = std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
                .map(|entry| entry.path())
                .collect();
            versions.sort();
            versions.into_iter().rev()
        });
        on_path
            .chain(built)
            .map(|folder| folder.join(program.name()))
            .find(|file| file.is_absolute() && file.is_file())
            .ok_or(ProgramError::Missing(program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_comes_first_and_what_is_missing_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("prometheus-3.1.0");
        std::fs::create_dir(&built).unwrap();
        std::fs::write(built.join("promtool"), "").unwrap();
        let places = Places::new(Some("relative".into()), Some(folder.path().to_owned()));
        assert_eq!(
            places.find(Program::Promtool, None).unwrap(),
            built.join("promtool"),
            "what was built"
        );
        let error = places.find(Program::Alertmanager, None).unwrap_err().to_string();
        assert!(error.contains("apt install prometheus-alertmanager"), "{error}");
        let error = places
            .find(Program::Promtool, Some(Path::new("/nowhere/promtool")))
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/promtool"), "{error}");
    }
}
