//! A document as Markdown and as a page. Whatever goes in is text: names of files and answers of databases come from
//! restored data, and none of them is markup.

use pictures::Page;

use crate::output::printable;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// The first one.
    Title(String),
    /// Begins a section.
    Section(String),
    /// A paragraph.
    Text(String),
    /// Short lines.
    List(Vec<String>),
    /// A heading and rows of as many cells.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// What to type.
    Code(Vec<String>),
}

/// As Markdown, CommonMark with tables.
pub(super) fn markdown(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        if !text.is_empty() {
            text.push('\n');
        }
        match block {
            Block::Title(title) => text.push_str(&format!("# {}\n", escaped(title))),
            Block::Section(title) => text.push_str(&format!("## {}\n", escaped(title))),
            Block::Text(words) => text.push_str(&format!("{}\n", escaped(words))),
            Block::List(items) => items
                .iter()
                .for_each(|item| text.push_str(&format!("- {}\n", escaped(item)))),
            Block::Table(head, rows) => {
                text.push_str(&format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len())));
                for row in rows {
                    let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
                    text.push_str(&format!("| {} |\n", cells.join(" | ")));
                }
            }
            Block::Code(lines) => {
                let lines: Vec<String> = lines.iter().map(|line| one_line(line)).collect();
                // Longer than any run of backticks inside.
                let longest = lines
                    .iter()
                    .flat_map(|line| line.split(|c| c != '`'))
                    .map(str::len)
                    .max();
                let fence = "`".repeat(3.max(longest.unwrap_or(0) + 1));
                text.push_str(&format!("{fence}sh\n{}\n{fence}\n", lines.join("\n")));
            }
        }
    }
    text
}

/// As one page.
pub(super) fn html(blocks: &[Block]) -> String {
    let title = blocks.iter().find_map(|block| match block {
        Block::Title(title) => Some(title.as_str()),
        _ => None,
    });
    let mut page = Page::new(title.unwrap_or_default());
    for block in blocks {
        page = match block {
            Block::Title(_) => page,
            Block::Section(title) => page.section(title),
            Block::Text(words) => page.text(words),
            Block::List(items) => page.list(items),
            Block::Table(head, rows) => page.table(head, rows.clone()),
            Block::Code(lines) => page.code(&lines.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n")),
        };
    }
    page.render()
}

/// What would begin, end or steer something stands as itself.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' | '$' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    // These begin a list, a quotation or a rule, and only at the beginning of a line.
    if safe.starts_with(['-', '+', '=']) || safe.starts_with(|c: char| c.is_ascii_digit()) && is_numbered(&safe) {
        safe.insert(0, '\u{200b}');
    }
    safe
}

fn is_numbered(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.starts_with(". ") || rest.starts_with(") ")
}

fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_goes_in_is_markup() {
        let evil = "a|b\n# c `d` <script>alert(1)</script> [x](javascript:1) \u{1b}[2J *e*".to_owned();
        let blocks = [
            Block::Title(evil.clone()),
            Block::Section(evil.clone()),
            Block::Text(evil.clone()),
            Block::List(vec![evil.clone()]),
            Block::Table(vec!["one"], vec![vec![evil.clone()]]),
            Block::Code(vec![format!("```\n{evil}")]),
        ];
        let text = markdown(&blocks);
        assert!(
            !text.contains("<script") || text.matches("<script").count() == 1,
            "only as code: {text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 2);
        let row = text.lines().find(|line| line.starts_with("| a")).expect("the row");
        assert_eq!(row.replace("\\|", "").matches('|').count(), 2, "{row}");
        let fence = text
            .lines()
            .find(|line| line.starts_with("````"))
            .expect("a longer fence");
        assert_eq!(fence, "````sh");
        let page = html(&blocks);
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    }
}
