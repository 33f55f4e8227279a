//! Charts as SVG: what a board and a report show, drawn without a browser, and as PNG with the feature `png`. It knows
//! nothing of where data is from.
//!
//! A chart is plain data ([`Lines`], [`Numbers`], [`Heat`], …). [`svg`] makes one a picture of its own, a [`Sheet`] puts
//! several into one picture, a [`Page`] puts pictures beside text. The same input gives the same bytes. Whatever the data
//! is, a picture is well-formed XML, of bounded size, with every point inside of it and every text escaped.

mod area;
mod canvas;
mod chart;
mod page;
#[cfg(feature = "png")]
mod png;
mod scale;
mod sheet;
mod text;
mod theme;
mod thin;
mod unit;

pub use area::Area;
pub use canvas::{Anchor, Canvas, LARGEST, Look, Stroke, Svg, Type};
pub use chart::{
    Axis, Bar, Bars, Cell, Chart, Dot, Gauge, Gauges, Heat, Legend, Lines, Mark, Number, Numbers, Series, Shape, Span,
    States, Table, Threshold, Words, svg,
};
pub use page::{Badge, Figure, Page};
#[cfg(feature = "png")]
pub use png::{PngError, png};
pub use scale::moment;
pub use sheet::{Panel, Sheet};
pub use text::{escape, fit, width};
pub use theme::{Colour, HEAT, SERIES, Theme, Tone, variables};
pub use unit::Unit;
