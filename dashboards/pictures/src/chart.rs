//! The kinds of charts. Each is plain data with a way to draw itself; none knows where its data is from.

mod bars;
mod gauges;
mod heat;
mod legend;
mod lines;
mod numbers;
mod plot;
mod states;
mod table;
mod words;

pub use bars::{Bar, Bars};
pub use gauges::{Gauge, Gauges};
pub use heat::Heat;
pub use legend::Legend;
pub use lines::{Dot, Lines, Series, Shape};
pub use numbers::{Number, Numbers};
pub use plot::{Axis, Mark, Threshold};
pub use states::{Span, States};
pub use table::{Cell, Table};
pub use words::Words;

use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Look, Svg, Type};
use crate::theme::{Colour, Theme};

/// Something that can be drawn.
pub trait Chart: std::fmt::Debug + Send + Sync {
    /// What it shows in a sentence or two, for who does not see it.
    fn describe(&self) -> String;

    /// Draws it inside of an area.
    fn draw(&self, canvas: &mut Canvas, area: Area);
}

/// One chart as a picture of its own: on paper, unless it stands on that of a page.
pub fn svg(chart: &dyn Chart, title: &str, look: &Look) -> Svg {
    let mut canvas = Canvas::new(look, "img", title, &chart.describe());
    let mut area = canvas.bounds();
    if look.theme != Theme::Page {
        canvas.rect(area, Colour::Paper, 0.0, "");
        area = area.inset(8.0, 6.0, 8.0, 6.0);
    }
    chart.draw(&mut canvas, area);
    canvas.finish()
}

/// In the middle of an area, why there is nothing else.
pub(crate) fn nothing(canvas: &mut Canvas, area: Area, words: &str) {
    let (x, y) = area.middle();
    let kind = Type::new(12.0, Colour::Soft).anchor(Anchor::Middle).room(area.width);
    canvas.text((x, y + 4.0), kind, words);
}

/// What is said where there is no data.
pub(crate) const NO_DATA: &str = "no data";
