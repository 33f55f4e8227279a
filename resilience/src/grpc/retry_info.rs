//! Reads `google.rpc.RetryInfo` out of `grpc-status-details-bin`. The three messages on the way have eight fields
//! between them: a generated decoder would cost two crates.
//!
//! ```proto
//! message Status    { int32 code = 1; string message = 2; repeated Any details = 3; }
//! message Any       { string type_url = 1; bytes value = 2; }
//! message RetryInfo { Duration retry_delay = 1; }
//! message Duration  { int64 seconds = 1; int32 nanos = 2; }
//! ```

use std::time::Duration;

/// The delay that the first `RetryInfo` in an encoded `google.rpc.Status` asks for. Negative ones, nanoseconds out of
/// range and bytes that are no such message are none.
pub(super) fn delay(status: &[u8]) -> Option<Duration> {
    let info = messages(status, 3).find_map(|any| {
        let url = last(any, 1).and_then(Value::bytes)?;
        let is_info = url.rsplit(|byte| *byte == b'/').next() == Some(b"google.rpc.RetryInfo");
        is_info.then(|| last(any, 2).and_then(Value::bytes).unwrap_or_default())
    })?;
    let delay = last(info, 1).and_then(Value::bytes)?;
    let number = |field| last(delay, field).map_or(Some(0), Value::number);
    // Negative numbers come as the upper half of what 64 bits hold.
    let seconds = number(1).filter(|seconds| i64::try_from(*seconds).is_ok())?;
    let nanos = u32::try_from(number(2)?).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) | Self::Fixed => None,
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(_) | Self::Fixed => None,
        }
    }
}

/// Of a field that comes more than once the last counts.
fn last(message: &[u8], field: u64) -> Option<Value<'_>> {
    Fields(message)
        .filter(|(number, _)| *number == field)
        .last()
        .map(|(_, value)| value)
}

fn messages(message: &[u8], field: u64) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter_map(move |(number, value)| value.bytes().filter(|_| number == field))
}

/// The fields of a message, up to the first that makes no sense.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&[byte], rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
