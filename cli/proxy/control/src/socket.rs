//! Unix sockets whose path may be longer than `sockaddr_un` (108 bytes). Not a transport of its own.
//!
//! On Linux the folder is opened with `O_PATH` and the socket addressed as `/proc/self/fd/N/name`, so only the last
//! component is bounded (about 80 bytes). Elsewhere the path is used as it is.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_folder, short) = shorten(path)?;
    UnixStream::connect(short).await
}

/// Listens at `path` with mode 0600. A socket file that nobody listens on any more is replaced.
///
/// # Errors
/// `AddrInUse` when a living process listens there, and what the operating system says otherwise.
pub async fn bind(path: &Path) -> io::Result<UnixListener> {
    let (_folder, short) = shorten(path)?;
    let listener = match UnixListener::bind(&short) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(&short).await {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(&short)?;
                UnixListener::bind(&short)?
            }
            _ => return Err(error),
        },
        other => other?,
    };
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The descriptor keeps the short path valid; it must live as long as the path is used.
#[cfg(target_os = "linux")]
fn shorten(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{Mode, OFlags};

    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((Some(folder), short))
}

#[cfg(not(target_os = "linux"))]
fn shorten(path: &Path) -> io::Result<(Option<OwnedFd>, PathBuf)> {
    Ok((None, path.to_owned()))
}
