//! How this crate reads JSON of restic's: what Go writes and serde would refuse.

use serde::{Deserialize, Deserializer};

/// Go writes an empty list as `null`.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
