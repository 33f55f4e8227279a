//! The page of figures: a section an area, each replaced as a whole when its area is measured again.

use std::{fmt, fs};

use anyhow::{Context, Result};

/// One area's figures.
#[derive(Debug)]
pub struct Section {
    /// The area, one word; the section's mark in the page.
    pub area: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What was measured, how, and with which versions.
    pub method: String,
    /// Column headings.
    pub columns: Vec<&'static str>,
    /// One row a figure.
    pub rows: Vec<Vec<String>>,
}

const PAGE: &str = "docs/reference/benchmarks.md";
const HEAD: &str = "# Benchmarks\n\nWritten by `cargo xtask bench`; each section holds both sides of a figure from one run on one machine.\n";

/// Puts `section` into the page, in place of the one of the same area.
pub fn write(section: Section) -> Result<()> {
    let file = peers::workspace_root().join(PAGE);
    let old = fs::read_to_string(&file).unwrap_or_else(|_| HEAD.to_owned());
    let new = replace(&old, &section);
    fs::create_dir_all(file.parent().context("the page has a folder")?)?;
    fs::write(&file, new).with_context(|| format!("could not write {PAGE}"))
}

fn replace(page: &str, section: &Section) -> String {
    let (open, close) = marks(section.area);
    let text = format!("{open}\n{section}{close}\n");
    match (page.find(&open), page.find(&close)) {
        (Some(start), Some(end)) if start < end => {
            let rest = page[end + close.len()..].trim_start_matches('\n');
            format!(
                "{}{text}{}{rest}",
                &page[..start],
                if rest.is_empty() { "" } else { "\n" }
            )
        }
        _ => format!("{}\n{text}", page.trim_end_matches('\n').to_owned() + "\n"),
    }
}

fn marks(area: &str) -> (String, String) {
    (format!("<!-- {area} -->"), format!("<!-- end of {area} -->"))
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.method)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len()))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(area: &'static str, figure: &str) -> Section {
        Section {
            area,
            title: "T",
            method: "M".into(),
            columns: vec!["a"],
            rows: vec![vec![figure.into()]],
        }
    }

    #[test]
    fn a_section_replaces_its_own_and_leaves_the_others() {
        let page = replace(HEAD, &section("one", "1"));
        let page = replace(&page, &section("two", "2"));
        let page = replace(&page, &section("one", "3"));
        assert!(
            page.contains("| 3 |") && page.contains("| 2 |") && !page.contains("| 1 |"),
            "{page}"
        );
        assert_eq!(page, replace(&page, &section("one", "3")));
    }
}
