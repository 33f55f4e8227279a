//! Where a scratch server lives and whom it runs as: a private folder with its socket and its configuration, and a data
//! folder that is its user's.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use super::{SUPERUSER, ScratchError, ScratchOptions, major};

/// The address of a Unix socket has so many bytes.
const SOCKET_PATH: usize = 107;
/// What stands in the folder's name, after which the socket's follows.
const SOCKET: &str = "/.s.PGSQL.5432.lock";
/// Files of settings that are looked through for libraries are not larger than this.
const SETTINGS_LIMIT: u64 = 1 << 20;

/// A private folder, removed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// With the socket in it (0700).
    pub(super) folder: PathBuf,
    /// User and group of the server, where we are root and it must not be.
    pub(super) user: Option<(u32, u32)>,
    /// The cluster's major version.
    pub(super) major: u32,
}

impl Place {
    /// Makes the folder, gives the data to the server's user, and says in it whether the log of an archive is replayed.
    pub(super) fn make(options: &ScratchOptions) -> Result<Self, ScratchError> {
        let data = options.data.as_path();
        let major = major(data)?;
        let user = user_of(data)?;
        let folder = make_folder(data, options.sockets.as_deref(), user)?;
        let place = Self { folder, user, major };
        if let Some((uid, gid)) = user {
            reachable(data, uid, gid)?;
            give(data, uid, gid).map_err(failed("give to the server's user", data))?;
        }
        // Peers are who the socket's folder lets in: its user and root.
        place.write(&place.folder, "pg_hba.conf", "local all all trust\n")?;
        place.write(&place.folder, "pg_ident.conf", "")?;
        place.write(&place.folder, "postgresql.conf", "")?;
        if !options.lasting {
            // What ALTER SYSTEM set on the other machine is not for this one.
            place.write(data, "postgresql.auto.conf", "")?;
        }
        for signal in ["standby.signal", "recovery.signal"] {
            let file = data.join(signal);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &file)(error)),
                _ => {}
            }
        }
        if options.recovery.is_some() {
            place.write(data, "recovery.signal", "")?;
        }
        Ok(place)
    }

    fn write(&self, folder: &Path, name: &str, text: &str) -> Result<(), ScratchError> {
        let path = folder.join(name);
        let write = || {
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create(true).truncate(true).mode(0o600);
            // A link in a copy may lead anywhere.
            let file = file.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
            io::Write::write_all(&mut file.open(&path)?, text.as_bytes())?;
            self.user
                .map_or(Ok(()), |(uid, gid)| lchown(&path, Some(uid), Some(gid)))
        };
        write().map_err(failed("write", &path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is empty files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_owned();
    move |source| ScratchError::Prepare { action, path, source }
}

/// Whom the server runs as: the owner of the data; where we are root and that is root, too, the user `postgres`.
fn user_of(data: &Path) -> Result<Option<(u32, u32)>, ScratchError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = fs::symlink_metadata(data).map_err(failed("look at", data))?;
    if owner.uid() != 0 {
        return Ok(Some((owner.uid(), owner.gid())));
    }
    user()
}

/// Whom a server runs as that we start: us, but for root the user `postgres`.
pub(super) fn user() -> Result<Option<(u32, u32)>, ScratchError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    account(&accounts, SUPERUSER).map(Some).ok_or(ScratchError::NoUser)
}

/// The numbers of a user and its group.
fn account(accounts: &str, user: &str) -> Option<(u32, u32)> {
    let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|line| line.first() == Some(&user))?;
    Some((line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?))
}

/// The first of `wanted`, `home` and the usual temporary folders that a server's user can get to.
pub(super) fn parent(wanted: &Path, home: &Path) -> PathBuf {
    let temporary = std::env::temp_dir();
    let everybody = !rustix::process::geteuid().is_root();
    let candidates = [wanted, home, &temporary, Path::new("/var/tmp"), Path::new("/tmp")];
    let mut reachable = candidates.into_iter().filter(|folder| everybody || is_open(folder));
    reachable.next().unwrap_or(&temporary).to_owned()
}

/// Whether anybody can get into a folder. One that is not there yet would be made for us alone.
fn is_open(folder: &Path) -> bool {
    let Ok(folder) = std::path::absolute(folder) else {
        return false;
    };
    let opens = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.mode() & 0o001 != 0);
    folder.ancestors().all(opens)
}

/// Where it is wanted or else beside the data, or where a socket's address is short enough.
fn make_folder(data: &Path, wanted: Option<&Path>, user: Option<(u32, u32)>) -> Result<PathBuf, ScratchError> {
    let name = format!(".opsctl-pg-{:016x}", rand::random::<u64>());
    let beside = match wanted {
        Some(folder) => folder.join(&name),
        None => fs::canonicalize(data)
            .map_err(failed("look at", data))?
            .with_file_name(&name),
    };
    let short = beside.as_os_str().len() + SOCKET.len() <= SOCKET_PATH;
    let folder = if short { beside } else { Path::new("/tmp").join(name) };
    let make = || {
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        user.map_or(Ok(()), |(uid, gid)| chown(&folder, Some(uid), Some(gid)))
    };
    make().map_err(failed("make", &folder))?;
    Ok(folder)
}

/// Whether the user gets to the folder, as far as owners and modes say.
fn reachable(data: &Path, uid: u32, gid: u32) -> Result<(), ScratchError> {
    let whole = fs::canonicalize(data).map_err(failed("look at", data))?;
    for folder in whole.ancestors().skip(1) {
        let found = folder.metadata().map_err(failed("look at", folder))?;
        let bit = match (found.uid() == uid, found.gid() == gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if found.mode() & bit == 0 {
            return Err(ScratchError::Unreachable {
                folder: folder.to_owned(),
                user: uid,
            });
        }
    }
    Ok(())
}

/// Makes a copy of ours, which root restored, the server's user's. What is somebody's already stays theirs.
fn give(data: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let mut open = vec![data.to_owned()];
    // Each tablespace is a link in this folder. No other link is followed, nor one that leads to something else.
    for entry in fs::read_dir(data.join("pg_tblspc")).into_iter().flatten() {
        let target = fs::canonicalize(entry?.path())?;
        let mut inside = fs::read_dir(&target)?;
        if inside.all(|entry| entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"PG_"))) {
            open.push(target);
        }
    }
    while let Some(path) = open.pop() {
        let found = path.symlink_metadata()?;
        if found.uid() == 0 {
            lchown(&path, Some(uid), Some(gid))?;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// The libraries that the copy's own settings load into every server: recovery may need what they bring. Included files
/// are not looked into.
pub(super) fn preloaded(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let file = data.join("postgresql.conf");
    if !fs::symlink_metadata(&file).is_ok_and(|file| file.is_file() && file.len() <= SETTINGS_LIMIT) {
        return found;
    }
    let text = fs::read(file).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let Some(rest) = line.trim_start().strip_prefix("shared_preload_libraries") else {
            continue;
        };
        let value = rest.trim_start().trim_start_matches('=').trim_start();
        let value = match value.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next().unwrap_or_default(),
            None => value.split([' ', '#', '\t']).next().unwrap_or_default(),
        };
        let names = value.split(',').map(|name| name.trim().trim_matches('"'));
        // Of several lines the last one holds.
        found = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    found
}

/// Those that are installed here, and the others. A name that is a path is taken for one of another machine.
pub(super) fn split_libraries(names: Vec<String>, programs: &Path) -> (Vec<String>, Vec<String>) {
    let beside = [
        "../lib",
        "../lib/postgresql",
        "../lib64",
        "../lib/pgsql",
        "../lib64/pgsql",
    ];
    let folders = beside.map(|folder| programs.join(folder));
    let library = |name: &str| {
        let name = name.strip_prefix("$libdir/").unwrap_or(name);
        let file = format!("{}.so", name.strip_suffix(".so").unwrap_or(name));
        !name.contains('/') && folders.iter().any(|folder| folder.join(&file).is_file())
    };
    names.into_iter().partition(|name| library(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_of_the_last_line_that_are_here() {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        let libraries = folder.path().join("lib/postgresql");
        fs::create_dir_all(&libraries).unwrap();
        fs::create_dir(&programs).unwrap();
        fs::write(libraries.join("pg_stat_statements.so"), "").unwrap();
        let conf = "shared_preload_libraries = 'a'\n#shared_preload_libraries = 'b'\n\
            shared_preload_libraries = 'pg_stat_statements, $libdir/timescaledb,/opt/x' # why\nport = 1\n";
        fs::write(folder.path().join("postgresql.conf"), conf).unwrap();
        let (here, missing) = split_libraries(preloaded(folder.path()), &programs);
        assert_eq!(here, ["pg_stat_statements"]);
        assert_eq!(missing, ["$libdir/timescaledb", "/opt/x"]);
        fs::write(folder.path().join("postgresql.conf"), "shared_preload_libraries=x # y").unwrap();
        assert_eq!(preloaded(folder.path()), ["x"]);
    }
}
