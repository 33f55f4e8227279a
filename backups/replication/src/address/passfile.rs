//! Passwords in a file, as `.pgpass` has them: `host:port:database:user:password`, `*` for any, `\` before `:` and `\`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::Host;

/// Larger files are none.
const LARGEST: u64 = 1 << 20;

/// The password of the first line that fits; `None` where none does. Replication's database is called `replication`.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::PermissionDenied`] where others than the owner may read the file.
pub(crate) fn password_from(
    file: &Path,
    host: &Host,
    database: &str,
    user: &str,
) -> io::Result<Option<Zeroizing<String>>> {
    let about = fs::metadata(file)?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no file of passwords",
        ));
    }
    if about.mode() & 0o077 != 0 {
        let why = "others than its owner may read it; its permissions must be 0600";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let text = Zeroizing::new(fs::read_to_string(file)?);
    Ok(find(&text, &host.in_passfile(), host.port(), database, user))
}

fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<Zeroizing<String>> {
    let port = port.to_string();
    let wanted = [host, &port, database, user];
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|mut fields| {
        let fits = |(field, wanted): (&(bool, Zeroizing<String>), &&str)| field.0 || field.1.as_str() == *wanted;
        let all = fields.len() == 5 && fields.iter().zip(&wanted).all(fits);
        all.then(|| fields.pop()).flatten().map(|(_, password)| password)
    })
}

/// The first five fields of a line, and whether each is a plain `*`. What is left after the fifth belongs to nothing.
fn fields(line: &str) -> Vec<(bool, Zeroizing<String>)> {
    let mut fields = Vec::with_capacity(5);
    let (mut field, mut plain) = (Zeroizing::new(String::new()), true);
    let mut chars = line.trim_end_matches('\r').chars();
    loop {
        let c = chars.next();
        match c {
            Some('\\') => {
                field.extend(chars.next());
                plain = false;
            }
            Some(c) if c != ':' => field.push(c),
            _ => {
                fields.push((plain && field.as_str() == "*", std::mem::take(&mut field)));
                plain = true;
                if c.is_none() || fields.len() == 5 {
                    return fields;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# host:port:database:user:no\n\
            db.internal:5432:replication:backup:first\n\
            db.internal:*:*:backup:second\n\
            *:*:*:a\\:b:with\\:colon\\\\\n\
            \\*:*:*:star:literal\n\
            short:line\n";
        let find = |host, port, database, user| find(text, host, port, database, user).map(|word| word.to_string());
        assert_eq!(
            find("db.internal", 5432, "replication", "backup").as_deref(),
            Some("first")
        );
        assert_eq!(
            find("db.internal", 5433, "replication", "backup").as_deref(),
            Some("second")
        );
        assert_eq!(find("other", 1, "x", "a:b").as_deref(), Some("with:colon\\"));
        assert_eq!(find("other", 1, "x", "star"), None);
        assert_eq!(find("*", 1, "x", "star").as_deref(), Some("literal"));
        assert_eq!(find("other", 5432, "replication", "backup"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords");
        fs::write(&file, "*:*:*:*:secret\n").unwrap();
        let host = Host::Tcp {
            name: "here".into(),
            address: None,
            port: 1,
        };
        let ask = || password_from(&file, &host, "replication", "me");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(ask().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(ask().unwrap().unwrap().as_str(), "secret");
    }
}
