//! Folders of mode 0700 and files of mode 0600, made so that no other user ever sees them wider. What is there already
//! keeps its mode: this is no place that repairs permissions.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Makes a folder and the missing ones above it, each of mode 0700. A folder that is there is left as it is.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes an empty file of mode 0600 unless there is one.
pub fn touch(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Puts `bytes` into a new file of mode 0600, whole or not at all, and durably. Says `false`, and changes nothing, when
/// a file of that name is there: of many processes that call this at once, exactly one gets `true`.
pub fn create_once(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    use std::io::Write as _;

    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let scratch = folder.join(format!(".{}.new", uuid::Uuid::new_v4()));
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&scratch)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A hard link is the one way to name a whole file that fails when the name is taken.
        match fs::hard_link(&scratch, path) {
            Ok(()) => {
                File::open(folder)?.sync_all()?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    })();
    // It may never have been made; and a leftover holds nothing that `path` does not.
    let _ = fs::remove_file(&scratch);
    result
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folders_and_files_are_for_their_owner_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let inner = scratch.path().join("a/b");
        folder(&inner).unwrap();
        touch(&inner.join("empty")).unwrap();
        assert!(create_once(&inner.join("full"), b"x").unwrap());
        assert_eq!(mode(&scratch.path().join("a")), 0o700);
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join("empty")), 0o600);
        assert_eq!(mode(&inner.join("full")), 0o600);
    }

    #[test]
    fn of_many_creators_one_wins_and_nobody_sees_half_a_file() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let winners: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        let text = n.to_string().repeat(10_000);
                        create_once(path, text.as_bytes()).unwrap().then_some(text)
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), winners[0]);
        let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no scratch file is left: {left:?}");
    }
}
