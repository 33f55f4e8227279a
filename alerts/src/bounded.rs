//! Reading files that somebody else names: never more than a limit, whatever a file says of its length. What is wrong with
//! a file is said by who asks for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;

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

/// Reads YAML that may be as long as a file that is read here: the crate's own limits are those of short configurations.
pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 8_000_000,
            max_events: 16_000_000,
        },
    };
    serde_saphyr::from_str_with_options(text, options)
}
