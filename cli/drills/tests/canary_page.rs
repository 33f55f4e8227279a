//! The page of a canary, from a document as `opsctl deploy canary --json` writes it (`data/canary.json`; somebody named a
//! criterion of his service as if it were markup).

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use opsctl_drills::report::canary;
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(include_str!("data/canary.json")).unwrap()
}

/// The cells of the table below a heading, row by row.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = page
        .split_once(heading)
        .unwrap_or_else(|| panic!("no {heading} in {page}"));
    let (body, _) = rest.split_once("</table>").unwrap();
    let rows = body.split("<tr>").skip(1);
    let cells = |row: &str| -> Vec<String> {
        let cells = row.split("<td").skip(1);
        let text = |cell: &str| {
            cell.split_once('>')
                .unwrap()
                .1
                .split_once("</td>")
                .unwrap()
                .0
                .to_owned()
        };
        cells.map(text).collect()
    };
    rows.map(cells).filter(|row| !row.is_empty()).collect()
}

#[test]
fn it_shows_what_decided_and_what_pods_used() {
    let page = canary::page(&document()).unwrap();
    assert_eq!(
        table(&page, "Criteria of the service"),
        [[
            "queue &lt;b&gt;depth&lt;/b&gt;",
            "0.4000",
            "0.4000",
            "at most 0.3",
            "0 of 12",
            "fail"
        ]]
    );
    assert_eq!(
        table(&page, "Per pod"),
        [
            ["canary", "1", "4.000 cores", "4.000 cores", "8583.1 MiB", "8583.1 MiB"],
            ["stable", "2", "0.150 cores", "0.200 cores", "1.4 MiB", "1.9 MiB"],
        ]
    );
    assert!(page.contains("a criterion of the service is not met"));
    assert!(!page.contains("<b>"), "what others wrote is no markup");
}

#[test]
fn without_measurements_it_has_no_table_of_them() {
    let mut document = document();
    document["criteria"] = json!([]);
    document["resources"] = Value::Null;
    let page = canary::page(&document).unwrap();
    assert!(!page.contains("Per pod") && !page.contains("Criteria of the service"));
}

#[test]
fn a_document_of_another_kind_is_refused() {
    let mut document = document();
    document["schema"] = "opsctl.drill/v1".into();
    assert!(canary::page(&document).is_err());
}
