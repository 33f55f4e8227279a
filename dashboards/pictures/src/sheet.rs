//! Several charts in one picture: panels with a title, a frame and a note each, where somebody has placed them. It
//! computes no layout.

use crate::area::Area;
use crate::canvas::{Anchor, Canvas, Look, Stroke, Svg, Type};
use crate::chart::Chart;
use crate::text::width;
use crate::theme::Colour;

/// A chart in a frame.
#[derive(Debug)]
pub struct Panel {
    /// What stands above it; may be empty.
    pub title: String,
    /// What is shown.
    pub chart: Box<dyn Chart>,
    /// A few words on what is missing or left away; may be empty.
    pub note: String,
}

/// Room between the frame of a panel and what is inside.
const PAD: f64 = 10.0;
/// Height of the line with the title.
const HEAD: f64 = 24.0;

impl Panel {
    fn draw(&self, canvas: &mut Canvas, area: Area) {
        let area = area.within(canvas.bounds());
        canvas.open(&self.title, &self.chart.describe());
        canvas.stand_on(Colour::Panel);
        canvas.rect(area, Colour::Panel, 6.0, "");
        canvas.frame(area, Stroke::new(Colour::Line, 1.0), 6.0);
        let noted = if self.note.is_empty() { 0.0 } else { 15.0 };
        let head = if self.title.is_empty() { 4.0 } else { HEAD };
        if !self.title.is_empty() {
            let kind = Type::new(13.0, Colour::Ink).bold().room(area.width - PAD * 2.0);
            canvas.text((area.x + PAD, area.y + 18.0), kind, &self.title);
        }
        let inner = area.inset(PAD, head + 2.0, PAD, 6.0 + noted);
        if inner.width >= 20.0 && inner.height >= 12.0 {
            self.chart.draw(canvas, inner);
        }
        if noted > 0.0 {
            let kind = Type::new(10.5, Colour::Soft).room(area.width - PAD * 2.0);
            canvas.text((area.x + PAD, area.bottom() - 6.0), kind, &self.note);
        }
        canvas.close();
    }
}

/// A picture of panels.
#[derive(Debug)]
pub struct Sheet {
    canvas: Canvas,
}

impl Sheet {
    /// An empty sheet of paper with what a reader says of it.
    pub fn new(look: &Look, title: &str, description: &str) -> Self {
        let mut canvas = Canvas::new(look, "group", title, description);
        let bounds = canvas.bounds();
        canvas.rect(bounds, Colour::Paper, 0.0, "");
        Self { canvas }
    }

    /// A title, and on the right of it less important words.
    pub fn title(&mut self, at: (f64, f64), title: &str, aside: &str) {
        let right = self.canvas.bounds().right();
        let beside = width(aside, 12.0).min((right - at.0) * 0.6);
        let kind = Type::new(20.0, Colour::Ink)
            .bold()
            .room(right - at.0 * 2.0 - beside - 16.0);
        self.canvas.text(at, kind, title);
        let kind = Type::new(12.0, Colour::Soft).anchor(Anchor::End).room(beside);
        self.canvas.text((right - at.0, at.1), kind, aside);
    }

    /// A heading over the rows below it, with less important words behind it.
    pub fn heading(&mut self, area: Area, title: &str, aside: &str) {
        let kind = Type::new(15.0, Colour::Ink).bold().room(area.width * 0.7);
        let y = area.y + area.height / 2.0 + 5.0;
        self.canvas.text((area.x, y), kind, title);
        let used = width(title, 15.0 * 1.08).min(area.width * 0.7);
        let kind = Type::new(12.0, Colour::Soft).room(area.width - used - 12.0);
        self.canvas.text((area.x + used + 12.0, y), kind, aside);
        let line = Stroke::new(Colour::Line, 1.0);
        self.canvas
            .line((area.x, area.bottom() - 2.0), (area.right(), area.bottom() - 2.0), line);
    }

    /// A line of less important words.
    pub fn line(&mut self, at: (f64, f64), words: &str) {
        let room = self.canvas.bounds().right() - at.0 * 2.0;
        self.canvas.text(at, Type::new(12.0, Colour::Soft).room(room), words);
    }

    /// A panel.
    pub fn panel(&mut self, area: Area, panel: &Panel) {
        panel.draw(&mut self.canvas, area);
    }

    /// The picture.
    pub fn finish(self) -> Svg {
        self.canvas.finish()
    }
}
