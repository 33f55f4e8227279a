//! A report as one HTML page: everything inline, nothing loaded, no script, readable on a phone, light and dark. Every
//! text that goes in is escaped here; only pictures of this crate go in as they are.

use std::fmt::Write as _;

use crate::canvas::{Look, Svg};
use crate::chart::{Chart, svg};
use crate::text::escape;
use crate::theme::{Theme, Tone, variables};

/// A word in a coloured frame: a verdict.
#[derive(Debug, Clone)]
pub struct Badge {
    text: String,
    tone: Tone,
}

impl Badge {
    /// A badge; the colour only repeats what the word says.
    pub fn new(text: &str, tone: Tone) -> Self {
        Self {
            text: text.to_owned(),
            tone,
        }
    }

    fn html(&self) -> String {
        let sign = match self.tone {
            Tone::Good => "✓ ",
            Tone::Bad => "✗ ",
            Tone::Other | Tone::Plain => "",
        };
        format!(
            "<span class=\"badge {}\">{sign}{}</span>",
            self.tone.class(),
            escape(&self.text)
        )
    }
}

/// A chart that goes onto a page.
#[derive(Debug)]
pub struct Figure {
    /// What it shows; read aloud, not drawn.
    pub title: String,
    /// The chart.
    pub chart: Box<dyn Chart>,
    /// Its height; the width is 720.
    pub height: f64,
    /// What stands below it.
    pub caption: String,
}

const WIDTH: f64 = 720.0;

/// A page in the making; parts appear in the order in which they are added.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    badge: Option<Badge>,
    lead: Option<String>,
    body: String,
    footer: Option<String>,
    open: bool,
    figures: usize,
    wide: bool,
    sections: Vec<String>,
    contents: bool,
}

impl Page {
    /// A page with a title and nothing on it.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            badge: None,
            lead: None,
            body: String::new(),
            footer: None,
            open: false,
            figures: 0,
            wide: false,
            sections: Vec::new(),
            contents: false,
        }
    }

    /// The verdict beside the title.
    #[must_use]
    pub fn badge(mut self, badge: Badge) -> Self {
        self.badge = Some(badge);
        self
    }

    /// One paragraph under the title that says it all.
    #[must_use]
    pub fn lead(mut self, text: &str) -> Self {
        self.lead = Some(text.to_owned());
        self
    }

    /// A line at the very end.
    #[must_use]
    pub fn footer(mut self, text: &str) -> Self {
        self.footer = Some(text.to_owned());
        self
    }

    /// As wide as the window: for pictures that are wider than text should be.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// Links to the sections, above the first.
    #[must_use]
    pub fn contents(mut self) -> Self {
        self.contents = true;
        self
    }

    /// The few figures that matter, large: label and value.
    #[must_use]
    pub fn facts<L: AsRef<str>, V: AsRef<str>>(mut self, facts: &[(L, V)]) -> Self {
        self.body.push_str("<dl class=\"facts\">\n");
        for (label, value) in facts {
            let _ = writeln!(
                self.body,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                escape(label.as_ref()),
                escape(&unbroken(value.as_ref()))
            );
        }
        self.body.push_str("</dl>\n");
        self
    }

    /// Begins a section.
    #[must_use]
    pub fn section(self, title: &str) -> Self {
        self.begin(title, None)
    }

    /// Begins a section with a verdict beside its title.
    #[must_use]
    pub fn section_with(self, title: &str, badge: &Badge) -> Self {
        self.begin(title, Some(badge))
    }

    fn begin(mut self, title: &str, badge: Option<&Badge>) -> Self {
        if self.open {
            self.body.push_str("</section>\n");
        }
        self.open = true;
        let badge = badge.map(Badge::html).unwrap_or_default();
        self.sections.push(title.to_owned());
        let number = self.sections.len();
        let title = escape(title);
        let _ = write!(
            self.body,
            "<section id=\"section-{number}\">\n<h2>{title} {badge}</h2>\n"
        );
        self
    }

    /// A paragraph.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
        self
    }

    /// A list of short lines.
    #[must_use]
    pub fn list<T: AsRef<str>>(mut self, items: &[T]) -> Self {
        self.body.push_str("<ul>\n");
        for item in items {
            let _ = writeln!(self.body, "<li>{}</li>", escape(item.as_ref()));
        }
        self.body.push_str("</ul>\n");
        self
    }

    /// Lines to be copied into a terminal.
    #[must_use]
    pub fn code(mut self, text: &str) -> Self {
        let _ = writeln!(self.body, "<pre><code>{}</code></pre>", escape(text));
        self
    }

    /// A table. Cells that are numbers are set to the right.
    #[must_use]
    pub fn table<H: AsRef<str>>(mut self, head: &[H], rows: Vec<Vec<String>>) -> Self {
        self.body.push_str("<div class=\"wide\"><table>\n<thead><tr>");
        for cell in head {
            let _ = write!(self.body, "<th scope=\"col\">{}</th>", escape(cell.as_ref()));
        }
        self.body.push_str("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.body.push_str("<tr>");
            for cell in row {
                let class = if is_number(&cell) { " class=\"number\"" } else { "" };
                let _ = write!(self.body, "<td{class}>{}</td>", escape(&cell));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</tbody>\n</table></div>\n");
        self
    }

    /// A chart with a caption, as wide as the page.
    #[must_use]
    pub fn figure(mut self, figure: &Figure) -> Self {
        self.figures += 1;
        let id = format!("f{}", self.figures);
        let look = Look::new(Theme::Page, &id, WIDTH, figure.height);
        let picture = svg(figure.chart.as_ref(), &figure.title, &look);
        self.picture(&picture, &figure.caption)
    }

    /// A picture that was drawn before, with a caption. Its id must be its own on the page.
    #[must_use]
    pub fn picture(mut self, picture: &Svg, caption: &str) -> Self {
        let _ = writeln!(
            self.body,
            "<figure><div class=\"wide\">{}</div><figcaption>{}</figcaption></figure>",
            picture.as_str(),
            escape(caption)
        );
        self
    }

    /// The page as text.
    pub fn render(self) -> String {
        let title = escape(&self.title);
        let badge = self.badge.as_ref().map(Badge::html).unwrap_or_default();
        let lead = self
            .lead
            .map(|text| format!("<p class=\"lead\">{}</p>\n", escape(&text)))
            .unwrap_or_default();
        let footer = self
            .footer
            .map(|text| format!("<footer>{}</footer>\n", escape(&text)))
            .unwrap_or_default();
        let contents = if self.contents {
            let each =
                self.sections.iter().enumerate().map(|(index, title)| {
                    format!("<li><a href=\"#section-{}\">{}</a></li>\n", index + 1, escape(title))
                });
            format!(
                "<nav aria-label=\"Contents\"><ul>\n{}</ul></nav>\n",
                each.collect::<String>()
            )
        } else {
            String::new()
        };
        let main = if self.wide { "<main class=\"whole\">" } else { "<main>" };
        let close = if self.open { "</section>\n" } else { "" };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{}{STYLE}</style>\n</head>\n\
             <body>\n{main}\n<header>\n<h1>{title} {badge}</h1>\n{lead}</header>\n{contents}{}{close}{footer}</main>\n</body>\n</html>\n",
            variables(),
            self.body
        )
    }
}

/// A large figure stays on one line with its unit.
fn unbroken(value: &str) -> String {
    let mut text = value.to_owned();
    for unit in ["%", "ms", "s", "min"] {
        for end in ["", ")"] {
            if let Some(number) = text.strip_suffix(&format!(" {unit}{end}")) {
                text = format!("{number}\u{a0}{unit}{end}");
            }
        }
    }
    text.replace(" % ", "\u{a0}% ").replace("± ", "±\u{a0}")
}

/// A figure with or without a unit: it begins with a digit and has no words.
fn is_number(cell: &str) -> bool {
    let mut parts = cell.split(' ');
    let first = parts.next().unwrap_or_default();
    let digits = first.strip_prefix(['-', '+']).unwrap_or(first);
    let number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '%'));
    number && parts.next().is_none_or(|unit| unit.chars().count() <= 3) && parts.next().is_none()
}

const STYLE: &str = "\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
main.whole { max-width: 100rem; }
.whole svg { min-width: 60rem; }
nav ul { columns: 18rem; padding-left: 1.2rem; } a { color: var(--plain); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
.lead { font-size: 1.08rem; color: var(--soft); max-width: 44rem; margin: .4rem 0 1.2rem; }
.badge { display: inline-block; font-size: .8rem; font-weight: 600; line-height: 1; vertical-align: middle;
  padding: .32em .6em; border: 1.5px solid currentColor; border-radius: 1em; white-space: nowrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.facts div { background: var(--panel); border-radius: .5rem; padding: .7rem .9rem; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: .1rem 0 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { white-space: nowrap; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; }
svg { display: block; width: 100%; min-width: 32rem; height: auto; }
pre { background: var(--panel); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto; font-size: .9rem; }
ul { padding-left: 1.2rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.plain { color: var(--plain); } .good { color: var(--good); } .bad { color: var(--bad); } .other { color: var(--other); }
@media print { main { max-width: none; } figure, table { break-inside: avoid; } }
";
