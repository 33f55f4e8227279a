//! Links between the project's pages lead somewhere.

use std::fs;

use anyhow::Result;

use super::{Finding, tree};

/// Every relative link of every Markdown page names a file or folder that exists.
pub fn check() -> Result<Vec<Finding>> {
    let root = peers::workspace_root();
    let mut findings = Vec::new();
    for page in tree::files_with("md", root)? {
        let place = page.strip_prefix(root).unwrap_or(&page).display().to_string();
        let text = fs::read_to_string(&page)?;
        let folder = page.parent().unwrap_or(root);
        for target in relative_links(&text) {
            if !folder.join(target).exists() {
                findings.push(Finding::new(
                    &place,
                    format!("links to `{target}`, which does not exist"),
                ));
            }
        }
    }
    Ok(findings)
}

/// Targets of `[text](target)` that are neither addresses nor anchors, without their anchor.
fn relative_links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::relative_links;

    #[test]
    fn finds_relative_links_only() {
        let text = "[a](docs/a.md#part) [b](https://example.org) [c](#here) [d](b.md)";
        assert_eq!(relative_links(text), ["docs/a.md", "b.md"]);
    }
}
