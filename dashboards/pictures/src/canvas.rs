//! What charts draw on: a writer of SVG that keeps every coordinate inside of the picture, escapes every text and knows the
//! colours of the theme. It decides nothing about charts.

use std::fmt::Write as _;

use crate::area::Area;
use crate::text::{self, escape, fit};
use crate::theme::{Colour, Theme, variables};

/// A finished picture: safe to put into a page as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg {
    text: String,
    theme: Theme,
}

impl Svg {
    /// The element as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whom it is coloured for.
    pub fn theme(&self) -> Theme {
        self.theme
    }
}

/// How a picture is to look, whatever it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Its colours.
    pub theme: Theme,
    /// What the ids inside of it begin with; another one for each picture of a page.
    pub id: String,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// No picture is larger than this, in either direction.
pub const LARGEST: f64 = 32_000.0;

impl Look {
    /// A look of a size; what is no size becomes one.
    pub fn new(theme: Theme, id: &str, width: f64, height: f64) -> Self {
        let hold = |size: f64| if size.is_nan() { 1.0 } else { size.clamp(1.0, LARGEST) };
        let id: String = id
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .collect();
        Self {
            theme,
            // An id begins with a letter.
            id: format!("p{id}"),
            width: hold(width),
            height: hold(height),
        }
    }
}

/// Where a text stands from the point that is given for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// How a text is set.
#[derive(Debug, Clone, Copy)]
pub struct Type {
    /// Its size.
    pub size: f64,
    /// Its colour.
    pub colour: Colour,
    /// Where it stands.
    pub anchor: Anchor,
    /// Heavier than the rest.
    pub bold: bool,
    /// How wide it may be; more is cut.
    pub room: f64,
    /// With a rim in the colour of what it stands on, so that it can be read over lines.
    pub rim: bool,
}

impl Type {
    /// Plain text of a size.
    pub fn new(size: f64, colour: Colour) -> Self {
        Self {
            size,
            colour,
            anchor: Anchor::Start,
            bold: false,
            room: f64::INFINITY,
            rim: false,
        }
    }

    /// The same, anchored elsewhere.
    #[must_use]
    pub fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    /// The same, heavier.
    #[must_use]
    pub fn bold(mut self) -> Self {
        self.bold = true;
        self
    }

    /// The same, with a rim.
    #[must_use]
    pub fn rim(mut self) -> Self {
        self.rim = true;
        self
    }

    /// The same, in so much room.
    #[must_use]
    pub fn room(mut self, room: f64) -> Self {
        self.room = room;
        self
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Stroke {
    /// Its colour.
    pub colour: Colour,
    /// How thick it is.
    pub width: f64,
    /// Its pattern, as SVG writes it.
    pub dash: Option<&'static str>,
}

impl Stroke {
    /// A line in the pattern of its colour.
    pub fn new(colour: Colour, width: f64) -> Self {
        Self {
            colour,
            width,
            dash: colour.dash(),
        }
    }

    /// The same in another pattern.
    #[must_use]
    pub fn dash(mut self, dash: &'static str) -> Self {
        self.dash = Some(dash);
        self
    }
}

/// A picture in the making.
#[derive(Debug)]
pub struct Canvas {
    out: String,
    theme: Theme,
    id: String,
    names: usize,
    bounds: Area,
    surface: Colour,
}

impl Canvas {
    /// An empty picture with what a reader says of it. `role` is `img` for a single picture, `group` for one of several.
    pub fn new(look: &Look, role: &str, title: &str, description: &str) -> Self {
        let Look {
            theme,
            id,
            width,
            height,
        } = look;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"{role}\" \
             aria-labelledby=\"{id}-t\" aria-describedby=\"{id}-d\" font-family=\"{2}\">\n\
             <title id=\"{id}-t\">{3}</title>\n<desc id=\"{id}-d\">{4}</desc>\n",
            number(*width),
            number(*height),
            text::FAMILY,
            escape(title),
            escape(description)
        );
        if *theme == Theme::Viewer {
            let _ = write!(out, "<style>\n{}</style>\n", variables());
        }
        Self {
            out,
            theme: *theme,
            id: id.clone(),
            names: 0,
            bounds: Area::new(0.0, 0.0, *width, *height),
            surface: Colour::Paper,
        }
    }

    /// The whole of it.
    pub fn bounds(&self) -> Area {
        self.bounds
    }

    /// Says on what the next things stand.
    pub fn stand_on(&mut self, surface: Colour) {
        self.surface = surface;
    }

    /// Ends the picture.
    pub fn finish(mut self) -> Svg {
        self.out.push_str("</svg>\n");
        Svg {
            text: self.out,
            theme: self.theme,
        }
    }

    /// Begins a picture inside of the picture, with what a reader says of it; [`Self::close`] ends it.
    pub fn open(&mut self, title: &str, description: &str) {
        self.names += 1;
        let name = format!("{}-{}", self.id, self.names);
        let _ = write!(
            self.out,
            "<g role=\"img\" aria-labelledby=\"{name}t\" aria-describedby=\"{name}d\">\n\
             <title id=\"{name}t\">{}</title>\n<desc id=\"{name}d\">{}</desc>\n",
            escape(title),
            escape(description)
        );
    }

    /// Ends what [`Self::open`] began.
    pub fn close(&mut self) {
        self.out.push_str("</g>\n");
    }

    /// A filled rectangle; `words` are shown where a pointer rests on it.
    pub fn rect(&mut self, area: Area, colour: Colour, radius: f64, words: &str) {
        let (x, y) = self.bounds.clamp((area.x, area.y));
        let (right, bottom) = self.bounds.clamp((area.right(), area.bottom()));
        let _ = write!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
            number(x),
            number(y),
            number((right - x).max(0.0)),
            number((bottom - y).max(0.0))
        );
        if radius > 0.0 {
            let _ = write!(self.out, " rx=\"{}\"", number(radius));
        }
        let _ = write!(self.out, " fill=\"{}\"", colour.text(self.theme));
        self.end("rect", words);
    }

    /// The outline of a rectangle.
    pub fn frame(&mut self, area: Area, stroke: Stroke, radius: f64) {
        let (x, y) = self.bounds.clamp((area.x, area.y));
        let (right, bottom) = self.bounds.clamp((area.right(), area.bottom()));
        let _ = write!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\" fill=\"none\"",
            number(x),
            number(y),
            number((right - x).max(0.0)),
            number((bottom - y).max(0.0)),
            number(radius)
        );
        self.stroke(stroke);
        self.end("rect", "");
    }

    /// A line through points, one for each stretch that hangs together.
    pub fn lines(&mut self, stretches: &[Vec<(f64, f64)>], stroke: Stroke, words: &str) {
        let path = self.path(stretches, false);
        if path.is_empty() {
            return;
        }
        let _ = write!(self.out, "<path d=\"{path}\" fill=\"none\"");
        self.stroke(stroke);
        self.out.push_str(" stroke-linejoin=\"round\" stroke-linecap=\"round\"");
        self.end("path", words);
    }

    /// Filled shapes by their corners.
    pub fn shapes(&mut self, shapes: &[Vec<(f64, f64)>], colour: Colour, opacity: f64, words: &str) {
        let path = self.path(shapes, true);
        if path.is_empty() {
            return;
        }
        let _ = write!(self.out, "<path d=\"{path}\" fill=\"{}\"", colour.text(self.theme));
        if opacity < 1.0 {
            let _ = write!(self.out, " fill-opacity=\"{:.2}\"", opacity.clamp(0.0, 1.0));
        }
        self.end("path", words);
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        let ((x1, y1), (x2, y2)) = (self.bounds.clamp(from), self.bounds.clamp(to));
        let _ = write!(
            self.out,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"",
            number(x1),
            number(y1),
            number(x2),
            number(y2)
        );
        self.stroke(stroke);
        self.end("line", "");
    }

    /// A filled dot.
    pub fn dot(&mut self, at: (f64, f64), radius: f64, colour: Colour, words: &str) {
        let (x, y) = self.bounds.clamp(at);
        let _ = write!(
            self.out,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"",
            number(x),
            number(y),
            number(radius),
            colour.text(self.theme)
        );
        self.end("circle", words);
    }

    /// A square on its corner, for what is no sample.
    pub fn diamond(&mut self, (x, y): (f64, f64), radius: f64, colour: Colour, words: &str) {
        let corners = vec![(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)];
        self.shapes(&[corners], colour, 1.0, words);
    }

    /// A text on a base line. It is cut to its room, and to what the picture has.
    pub fn text(&mut self, at: (f64, f64), kind: Type, words: &str) {
        let (x, y) = self.bounds.clamp(at);
        let (before, after) = (x - self.bounds.x, self.bounds.right() - x);
        let there = match kind.anchor {
            Anchor::Start => after,
            Anchor::Middle => before.min(after) * 2.0,
            Anchor::End => before,
        };
        // What is heavier is a little wider.
        let size = if kind.bold { kind.size * 1.08 } else { kind.size };
        // A narrow font may still have room for what the table thinks too wide by a hair.
        let words = fit(words, size, kind.room.min(there) + 0.5);
        if words.is_empty() {
            return;
        }
        let _ = write!(
            self.out,
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"",
            number(x),
            number(y),
            number(kind.size),
            kind.colour.text(self.theme)
        );
        match kind.anchor {
            Anchor::Start => {}
            Anchor::Middle => self.out.push_str(" text-anchor=\"middle\""),
            Anchor::End => self.out.push_str(" text-anchor=\"end\""),
        }
        if kind.bold {
            self.out.push_str(" font-weight=\"600\"");
        }
        if kind.rim {
            let surface = self.surface.text(self.theme);
            let _ = write!(
                self.out,
                " stroke=\"{surface}\" stroke-width=\"3\" stroke-linejoin=\"round\" paint-order=\"stroke\""
            );
        }
        let _ = writeln!(self.out, ">{}</text>", escape(&words));
    }

    fn stroke(&mut self, stroke: Stroke) {
        let _ = write!(
            self.out,
            " stroke=\"{}\" stroke-width=\"{}\"",
            stroke.colour.text(self.theme),
            number(stroke.width)
        );
        if let Some(dash) = stroke.dash {
            let _ = write!(self.out, " stroke-dasharray=\"{dash}\"");
        }
    }

    fn end(&mut self, element: &str, words: &str) {
        if words.is_empty() {
            self.out.push_str("/>\n");
        } else {
            let _ = writeln!(self.out, "><title>{}</title></{element}>", escape(words));
        }
    }

    fn path(&self, stretches: &[Vec<(f64, f64)>], closed: bool) -> String {
        let mut path = String::new();
        for stretch in stretches {
            let mut before = None;
            for point in stretch {
                let (x, y) = self.bounds.clamp(*point);
                let (x, y) = (number(x), number(y));
                let _ = match &before {
                    None => write!(path, "M{x} {y}"),
                    Some((at, height)) if *at == x && *height == y => continue,
                    Some((at, _)) if *at == x => write!(path, "V{y}"),
                    Some((_, height)) if *height == y => write!(path, "H{x}"),
                    Some(_) => write!(path, "L{x} {y}"),
                };
                before = Some((x, y));
            }
            if closed && before.is_some() {
                path.push('Z');
            }
        }
        path
    }
}

/// A coordinate: a tenth is finer than what is seen.
fn number(value: f64) -> String {
    let mut text = format!("{value:.1}");
    if text.ends_with(".0") {
        text.truncate(text.len() - 2);
    }
    if text == "-0" {
        text.remove(0);
    }
    text
}
