//! Colours by what they mean, for light and for dark. Text is legible on every surface that it may stand on, series can be
//! told apart by those who see colours otherwise, and nothing is told by colour alone. It draws nothing.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whom a picture is coloured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Light paper.
    Light,
    /// Dark paper.
    Dark,
    /// As the viewer has it: the file brings a style that follows `prefers-color-scheme`. Browsers alone understand it.
    Viewer,
    /// Inside of a page that brings the style, as [`crate::Page`] does.
    Page,
}

/// What a thing means, apart from its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    Plain,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Something else, or soon not as it should be.
    Other,
}

impl Tone {
    /// Its class in the style of a page.
    pub fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Other => "other",
        }
    }
}

/// A colour by its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// What everything stands on.
    Paper,
    /// A box on the paper.
    Panel,
    /// Lines that only guide the eye.
    Line,
    /// Text.
    Ink,
    /// Text of less weight.
    Soft,
    /// A stretch that is shaded.
    Band,
    /// What a thing means.
    Of(Tone),
    /// One of many things of a kind; from [`SERIES`] on they repeat, in another pattern.
    Series(usize),
    /// How much, from 0 to [`HEAT`] - 1.
    Heat(usize),
}

/// How many series have colours of their own.
pub const SERIES: usize = 8;
/// How many steps a heat map has.
pub const HEAT: usize = 7;

/// Name, on light, on dark.
type Row = (&'static str, &'static str, &'static str);

const PAPER: Row = ("paper", "#ffffff", "#14171b");
const PANEL: Row = ("panel", "#f5f6f8", "#1d2127");
const LINE: Row = ("line", "#d8dce2", "#353c45");
const INK: Row = ("ink", "#1b1f24", "#e8eaed");
const SOFT: Row = ("soft", "#59636e", "#a2abb6");
const BAND: Row = ("band", "#fbe9e7", "#33272a");
const PLAIN: Row = ("plain", "#0b63c5", "#6cb2ff");
const GOOD: Row = ("good", "#137a3c", "#5bd28a");
const BAD: Row = ("bad", "#c42b1c", "#ff8a7d");
const OTHER: Row = ("other", "#8a5a00", "#e7b84f");
/// Chosen so that every two are apart for every kind of colour vision; a test reckons it.
const SERIES_ROWS: [Row; SERIES] = [
    ("s0", "#0b63c5", "#6cb2ff"),
    ("s1", "#b46e04", "#e0a024"),
    ("s2", "#2a5c28", "#5fffa4"),
    ("s3", "#7b447f", "#d954b3"),
    ("s4", "#1b7af7", "#ffd500"),
    ("s5", "#877990", "#b1c0bd"),
    ("s6", "#462600", "#cae5ff"),
    ("s7", "#28008c", "#878b59"),
];
/// From the panel's colour to the strongest, even in lightness.
const HEAT_ROWS: [Row; HEAT] = [
    ("h0", "#e3edf8", "#1f2f42"),
    ("h1", "#c2d9f0", "#1f4063"),
    ("h2", "#98bfe5", "#205485"),
    ("h3", "#68a1d8", "#2a6cab"),
    ("h4", "#3b80c4", "#4a8ccd"),
    ("h5", "#195ca3", "#84b4e6"),
    ("h6", "#0a3a72", "#cfe3f8"),
];

impl Colour {
    fn row(self) -> Row {
        match self {
            Self::Paper => PAPER,
            Self::Panel => PANEL,
            Self::Line => LINE,
            Self::Ink => INK,
            Self::Soft => SOFT,
            Self::Band => BAND,
            Self::Of(Tone::Plain) => PLAIN,
            Self::Of(Tone::Good) => GOOD,
            Self::Of(Tone::Bad) => BAD,
            Self::Of(Tone::Other) => OTHER,
            Self::Series(index) => SERIES_ROWS[index % SERIES],
            Self::Heat(step) => HEAT_ROWS[step.min(HEAT - 1)],
        }
    }

    /// How it is written in a picture of a theme.
    pub fn text(self, theme: Theme) -> Cow<'static, str> {
        let (name, light, dark) = self.row();
        match theme {
            Theme::Light => light.into(),
            Theme::Dark => dark.into(),
            Theme::Viewer | Theme::Page => format!("var(--{name})").into(),
        }
    }

    /// The pattern of its lines, so that they can be told apart without colour: SVG's `stroke-dasharray`.
    pub fn dash(self) -> Option<&'static str> {
        match self {
            Self::Of(Tone::Bad) => Some("6 4"),
            Self::Of(Tone::Other) => Some("1 5"),
            Self::Series(index) => [None, Some("6 4"), Some("1 5"), Some("8 4 2 4")][index / SERIES % 4],
            _ => None,
        }
    }

    /// Every colour there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let plain = [Self::Paper, Self::Panel, Self::Line, Self::Ink, Self::Soft, Self::Band];
        let tones = [Tone::Plain, Tone::Good, Tone::Bad, Tone::Other].map(Self::Of);
        plain
            .into_iter()
            .chain(tones)
            .chain((0..SERIES).map(Self::Series))
            .chain((0..HEAT).map(Self::Heat))
    }
}

/// The style that [`Theme::Viewer`] and [`Theme::Page`] refer to: a variable for each colour, for light and for dark.
pub fn variables() -> String {
    let list = |theme: Theme| {
        Colour::all().fold(String::new(), |mut list, colour| {
            let _ = write!(list, "--{}:{};", colour.row().0, colour.text(theme));
            list
        })
    };
    format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        list(Theme::Light),
        list(Theme::Dark)
    )
}
