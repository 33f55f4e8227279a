//! Reading files that somebody else names: never more than a limit, whatever a file says of its length. What is wrong with
//! a file is said by who asks for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The text of a file; `None` where it has more than `limit` bytes. A device says that it has none and goes on for ever.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > limit {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= limit).then_some(text))
}
