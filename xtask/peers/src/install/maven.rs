//! Java programs: what a `pom.xml` of this project names, with all that it needs, fetched by Maven, held against
//! `checksums` beside it (`SHA256  NAME` a line), and started by the script beside it that has the peer's name. And other
//! programs that a Java archive only carries.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Fetches the archives of `peer` into `made/lib`, and its script into `made`.
pub(super) fn fetch(peer: &Peer, workshop: &Path, made: &Path) -> Result<(), InstallError> {
    archives(peer, workshop, &made.join("lib"))?;
    let script = made.join(peer.name);
    fs::copy(recipe("maven", peer).join(peer.name), &script).map_err(|error| in_file(&script, error))?;
    Ok(())
}

/// Fetches the archive of `peer` and unpacks the `.txz` that it carries into `made`.
pub(super) fn unpack(peer: &Peer, workshop: &Path, made: &Path) -> Result<(), InstallError> {
    archives(peer, workshop, &workshop.join("archives"))?;
    // From the same repository, which nobody else writes to, what was held against the checksums above.
    let unpacked = workshop.join("unpacked");
    let markers = workshop.join("markers");
    let goal = maven(peer, workshop, "dependency:unpack-dependencies", &unpacked);
    let goal = goal.arg(format!("-DmarkersDirectory={}", markers.display()));
    tool::run(&goal, workshop, Some(workshop))?;
    let tar = Program::new("tar")
        .args(["--extract", "--xz", "--no-same-owner", "--file"])
        .arg(only_txz(&unpacked)?)
        .arg("--directory")
        .arg(made);
    tool::run(&tar, workshop, Some(workshop)).map(drop)
}

/// Fetches the archives of `peer` into `archives` and holds them against their checksums.
fn archives(peer: &Peer, workshop: &Path, archives: &Path) -> Result<(), InstallError> {
    let goal = maven(peer, workshop, "dependency:copy-dependencies", archives);
    tool::run(&goal, workshop, Some(workshop))?;
    verify(archives, &recipe("maven", peer).join("checksums"))
}

/// A goal of Maven with what the peer's `pom.xml` names, into the folder `output`.
fn maven(peer: &Peer, workshop: &Path, goal: &str, output: &Path) -> Program {
    Program::new("mvn")
        .args(["--quiet", "--batch-mode", "--strict-checksums", goal, "--file"])
        .arg(recipe("maven", peer).join("pom.xml"))
        .arg(format!("-DoutputDirectory={}", output.display()))
        .arg(format!("-Dmaven.repo.local={}", workshop.join("repository").display()))
}

/// The one packed archive in a folder.
fn only_txz(folder: &Path) -> Result<PathBuf, InstallError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut found: Vec<PathBuf> = listed.map_err(|error| in_file(folder, error))?;
    found.retain(|path| path.extension() == Some(OsStr::new("txz")));
    match (found.pop(), found.pop()) {
        (Some(one), None) => Ok(one),
        _ => Err(in_file(folder, io::Error::other("there is not exactly one .txz in it"))),
    }
}

/// Exactly the files of the list are there, each with its checksum.
fn verify(archives: &Path, list: &Path) -> Result<(), InstallError> {
    let text = fs::read_to_string(list).map_err(|error| in_file(list, error))?;
    let mut expected: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name, sum))
        .collect();
    for entry in fs::read_dir(archives).map_err(|error| in_file(archives, error))? {
        let entry = entry.map_err(|error| in_file(archives, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(entry.path()).map_err(|error| in_file(&entry.path(), error))?;
        let problem = match expected.remove(name.as_str()) {
            Some(sum) if sum == hex::encode(Sha256::digest(&bytes)) => continue,
            Some(_) => "it has another checksum",
            None => "it is not in the list",
        };
        return Err(InstallError::Checksum { file: name, problem });
    }
    match expected.into_keys().next() {
        None => Ok(()),
        Some(name) => Err(InstallError::Checksum {
            file: name.to_owned(),
            problem: "it was not fetched",
        }),
    }
}

fn in_file(path: &Path, source: io::Error) -> InstallError {
    let path = path.to_owned();
    InstallError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_listed_archives_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (archives, list) = (folder.path().join("lib"), folder.path().join("checksums"));
        fs::create_dir(&archives).unwrap();
        fs::write(archives.join("a.jar"), "a").unwrap();
        let line = |text: &str, name: &str| format!("{}  {name}\n", hex::encode(Sha256::digest(text)));
        let problem = |lines: String| {
            fs::write(&list, lines).unwrap();
            match verify(&archives, &list) {
                Ok(()) => None,
                Err(InstallError::Checksum { file, problem }) => Some((file, problem)),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(problem(line("a", "a.jar")), None);
        assert_eq!(
            problem(line("b", "a.jar")),
            Some(("a.jar".to_owned(), "it has another checksum"))
        );
        assert_eq!(
            problem(line("a", "b.jar")),
            Some(("a.jar".to_owned(), "it is not in the list"))
        );
        let both = line("a", "a.jar") + &line("b", "b.jar");
        assert_eq!(problem(both), Some(("b.jar".to_owned(), "it was not fetched")));
    }
}
