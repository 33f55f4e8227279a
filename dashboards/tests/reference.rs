//! The page of all checks is written from its table: `UPDATE_REFERENCE=1 cargo test -p dashboards --test reference` writes
//! it anew.

use std::fmt::Write as _;
use std::fs;

use dashboards::check::CHECKS;

const HEAD: &str = "# Checks of boards\n\n\
    <!-- Written by dashboards/tests/reference.rs from the table of checks; edit that. -->\n\n\
    What `dashboard check` looks for on boards of any schema version. Questions are held against those checks of\n\
    [alert rules](alert-checks.md) too that are about single expressions.\n\n\
    | check | severity | what it finds | why that matters |\n|---|---|---|---|\n";

#[test]
fn the_page_of_checks_is_up_to_date() {
    let mut page = HEAD.to_owned();
    for check in CHECKS {
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
    let file = peers::workspace_root().join("docs/reference/dashboard-checks.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&file, &page).expect("the page is written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, page, "docs/reference/dashboard-checks.md is stale");
}
