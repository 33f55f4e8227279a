//! The units of values, under the names that Grafana knows them by.
//!
//! Source: Grafana's `valueFormats/categories.ts`, as listed in the foundation SDK's `units.jsonschema.json`.

use serde::{Serialize, Serializer};

macro_rules! units {
    ($($(#[$doc:meta])* $name:ident $id:literal,)*) => {
        /// A unit that our boards use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Unit {
            $($(#[$doc])* $name,)*
        }

        impl Unit {
            /// Grafana's name of it.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }
        }
    };
}

units! {
    /// A count: 1.2 K.
    Count "short",
    /// A number as it is.
    Number "none",
    /// Text.
    Text "string",
    /// Seconds: 250 ms, 3 min.
    Seconds "s",
    /// Thousandths of a second.
    Milliseconds "ms",
    /// Bytes in powers of 1024.
    Bytes "bytes",
    /// The same per second.
    BytesPerSecond "binBps",
    /// A share of 1, shown as percent.
    Ratio "percentunit",
    /// Requests per second.
    Requests "reqps",
    /// Other things per second.
    PerSecond "ops",
    /// Rows per second.
    RowsPerSecond "rowsps",
    /// Unix time in seconds × 1000, shown as a distance from now.
    FromNow "dateTimeFromNow",
    /// Processor cores.
    Cores "suffix: cores",
    /// Cores × hours and the like: money is left to whoever knows the prices.
    CoreHours "suffix: core h",
    /// Gibibytes × hours.
    GibibyteHours "suffix: GiB h",
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
