//! Pages: whatever goes in is text, and nothing is loaded from elsewhere.

use pictures::{Badge, Colour, Page, Theme, Tone};

#[test]
fn whatever_goes_in_is_text() {
    let evil = "<script>alert('x')</script>&\"\u{1b}[31m";
    let page = Page::new(evil)
        .badge(Badge::new(evil, Tone::Bad))
        .lead(evil)
        .facts(&[(evil, evil)])
        .section(evil)
        .text(evil)
        .list(&[evil])
        .code(evil)
        .table(&[evil], vec![vec![evil.to_owned()]])
        .footer(evil)
        .render();
    assert!(!page.contains("<script"));
    assert!(!page.contains('\u{1b}'));
    assert_eq!(page.matches("&lt;script&gt;").count(), 13);
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let page = Page::new("x").section("y").text("z").render();
    for foreign in ["http://", "https://", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<section ").count(), page.matches("</section>").count());
}

#[test]
fn numbers_in_tables_are_told_from_words() {
    for (cell, number) in [
        ("12", true),
        ("1.5 s", true),
        ("99.9 %", true),
        ("-3", true),
        ("", false),
        ("no data", false),
        ("12 of 13", false),
        ("orders-1", false),
        ("2 instances ready", false),
    ] {
        let page = Page::new("x").table(&["head"], vec![vec![cell.to_owned()]]).render();
        assert_eq!(page.contains("<td class=\"number\">"), number, "{cell}");
    }
}

/// A page has each colour once for light and once for dark, so that pictures on it need none of their own.
#[test]
fn a_page_brings_the_colours_of_its_pictures() {
    let page = Page::new("x").render();
    for colour in Colour::all() {
        let variable = colour.text(Theme::Page).replace("var(", "").replace(')', ":");
        assert_eq!(page.matches(&variable).count(), 2, "{variable}");
    }
}
