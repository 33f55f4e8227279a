//! The page of all checks is written from their tables: `UPDATE_REFERENCE=1 cargo test -p alerts --test reference` writes
//! it anew.

use std::fmt::Write as _;
use std::fs;

use alerts::check::checks;

const HEAD: &str = "# Checks of alert rules\n\n\
    <!-- Written by alerts/tests/reference.rs from the tables of checks; edit those. -->\n\n\
    What `alert check` looks for in files of rules and in an Alertmanager's configuration. A comment suppresses a finding\n\
    until a day and for a reason: `# opsctl ignore(no-for) until 2026-12-31: pages at once on purpose` above, in or beside\n\
    the rule, `# opsctl ignore-file(…) until …: …` for the whole file.\n\n\
    | check | severity | what it finds | why that matters |\n|---|---|---|---|\n";

#[test]
fn the_page_of_checks_is_up_to_date() {
    let mut page = HEAD.to_owned();
    for check in checks() {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            check.name,
            check.severity,
            cell(check.what),
            cell(check.why)
        );
    }
    let file = peers::workspace_root().join("docs/reference/alert-checks.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&file, &page).expect("the page is written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, page, "docs/reference/alert-checks.md is stale");
}
