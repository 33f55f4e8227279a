//! Pictures are well-formed, bounded, legible and the same on every machine, whatever the data is.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod drawn;
mod gallery;
mod judge;
mod palette;
mod paper;
#[cfg(feature = "png")]
mod pixels;
mod properties;
mod writing;
