//! What `restore_command` does: asks the server for one file and puts it where PostgreSQL wants it. Without a runtime,
//! for it is started once for every segment.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FILE_LIMIT, REASON_LIMIT, Status, is_name, unnamed};

/// A store that is away is asked for so long by the server, which then says so.
const ANSWER_LIMIT: Duration = Duration::from_mins(30);
/// Bytes that are copied at one time.
const PIECE: usize = 1 << 20;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The file is there.
    Written,
    /// There is no such file, and that is right so: it lies beyond the end, or is a history that does not exist.
    Absent,
}

/// Why there is no file where there should be one. PostgreSQL must not go on.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It is known to be missing or damaged, or the store does not answer.
    #[error("{0}")]
    Refused(String),
    /// Nobody asks the archive's server for such a thing.
    #[error("{0:?} is no name of a file of the log")]
    Name(String),
    /// The server is not there, or went away.
    #[error("nobody hands out the log at {}", socket.display())]
    Server {
        /// The server's socket.
        socket: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// What the server said makes no sense.
    #[error("what hands out the log at {} is something else", socket.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Asks the server at `socket` for the file `name` and puts it at `to`: whole, or not at all. Blocks.
pub fn take(socket: &Path, name: &str, to: &Path) -> Result<Taken, TakeError> {
    if !is_name(name) {
        return Err(TakeError::Name(name.to_owned()));
    }
    let server = |source| TakeError::Server {
        socket: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket).map_err(server)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(server)?;
    stream.write_all(format!("{name}\n").as_bytes()).map_err(server)?;
    let mut head = [0; 9];
    let (received, unnamed) = unnamed::receive(&stream, &mut head).map_err(server)?;
    stream.read_exact(&mut head[received..]).map_err(server)?;
    let [status, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    let foreign = || TakeError::Foreign {
        socket: socket.to_owned(),
    };
    match Status::of(status).ok_or_else(foreign)? {
        Status::Absent if length == 0 => Ok(Taken::Absent),
        Status::Refused if length <= REASON_LIMIT as u64 => {
            let mut why = String::new();
            stream.take(length).read_to_string(&mut why).map_err(server)?;
            Err(TakeError::Refused(why))
        }
        Status::File if length <= FILE_LIMIT => {
            write(&mut stream, length, to, socket)?;
            Ok(Taken::Written)
        }
        Status::Unnamed if length <= FILE_LIMIT => {
            let mut file = unnamed.ok_or_else(foreign)?;
            if file.metadata().map_err(server)?.len() != length {
                return Err(foreign());
            }
            if unnamed::name(&file, to).is_err() {
                // The name is taken, or lies on another file system.
                file.rewind().map_err(server)?;
                write(&mut file, length, to, socket)?;
            }
            Ok(Taken::Written)
        }
        _ => Err(foreign()),
    }
}

/// Under another name first: what has the file's name is the file. It need not outlive the machine; PostgreSQL asks again.
fn write(stream: &mut impl Read, length: u64, to: &Path, socket: &Path) -> Result<(), TakeError> {
    let mut half = to.as_os_str().to_owned();
    half.push(".part");
    let half = PathBuf::from(half);
    let failed = |source| TakeError::Target {
        path: to.to_owned(),
        source,
    };
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut copy = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&half)
            .map_err(failed)?;
        let mut piece = vec![0; PIECE];
        let mut left = length;
        while left > 0 {
            let wanted = left.min(PIECE as u64) as usize;
            let read = match stream.read(&mut piece[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            let read = read.map_err(|source| TakeError::Server {
                socket: socket.to_owned(),
                source,
            })?;
            file.write_all(&piece[..read]).map_err(failed)?;
            left -= read as u64;
        }
        fs::rename(&half, to).map_err(failed)
    };
    copy().inspect_err(|_| {
        let _ = fs::remove_file(&half);
    })
}
