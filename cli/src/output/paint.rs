//! Colours: five meanings, never the only carrier of a meaning.

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Green: done, healthy.
    Done,
    /// Red: an error, unhealthy.
    Error,
    /// Yellow: a warning, degraded.
    Warning,
    /// Cyan: names, paths, hints.
    Hint,
    /// Bold: headings.
    Heading,
    /// Dim: what may be skipped.
    Faint,
}

/// Whether and how a stream is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// No colours.
    Plain,
    /// ANSI colours.
    Ansi,
    /// No colours and nothing beyond ASCII.
    Ascii,
}

impl Paint {
    /// `text` in the colour of `style`.
    pub(crate) fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Done => "32",
            Style::Error => "1;31",
            Style::Warning => "33",
            Style::Hint => "36",
            Style::Heading => "1",
            Style::Faint => "2",
        };
        match self {
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Plain | Self::Ascii => text.to_owned(),
        }
    }

    /// A coloured mark: ✓, ✗, !, or their ASCII forms.
    pub(crate) fn mark(self, style: Style) -> String {
        let mark = match (style, self) {
            (Style::Done, Self::Ascii) => "ok",
            (Style::Done, _) => "✓",
            (Style::Error, Self::Ascii) => "x",
            (Style::Error, _) => "✗",
            (Style::Warning, _) => "!",
            (_, _) => "-",
        };
        self.apply(style, mark)
    }
}
