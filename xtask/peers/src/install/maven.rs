//! Java programs: what a `pom.xml` of this project names, with all that it needs, fetched by Maven, held against
//! `checksums` beside it (`SHA256  NAME` a line), and started by the script beside it that has the peer's name.

use std::{collections::BTreeMap, fs, io, path::Path};

use sha2::{Digest, Sha256};

use super::{InstallError, recipe, tool};
use crate::{Peer, Program};

/// Fetches the archives of `peer` into `made/lib`, and its script into `made`.
pub(super) fn fetch(peer: &Peer, workshop: &Path, made: &Path) -> Result<(), InstallError> {
    let source = recipe("maven", peer);
    let archives = made.join("lib");
    let maven = Program::new("mvn")
        .args([
            "--quiet",
            "--batch-mode",
            "--strict-checksums",
            "dependency:copy-dependencies",
            "--file",
        ])
        .arg(source.join("pom.xml"))
        .arg(format!("-DoutputDirectory={}", archives.display()))
        .arg(format!("-Dmaven.repo.local={}", workshop.join("repository").display()));
    tool::run(&maven, workshop, Some(workshop))?;
    verify(&archives, &source.join("checksums"))?;
    let script = made.join(peer.name);
    fs::copy(source.join(peer.name), &script).map_err(|error| in_file(&script, error))?;
    Ok(())
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
