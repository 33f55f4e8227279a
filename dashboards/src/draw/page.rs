//! Boards as one page that needs nothing but itself: a list of them at the top, each picture below. It draws nothing.

use pictures::Page;

use super::Drawing;

/// A page of boards, in the order in which they are given. Their pictures are to be drawn for [`pictures::Theme::Page`],
/// each with an id of its own.
pub fn page(title: &str, boards: &[Drawing], footer: &str) -> String {
    let mut page = Page::new(title).wide();
    if boards.len() > 1 {
        page = page.contents();
    }
    for board in boards {
        if boards.len() > 1 {
            page = page.section(&board.title);
        }
        let caption = match board.failures.as_slice() {
            [] => format!("{} panels, {} questions.", board.panels, board.questions),
            failures => {
                let told: Vec<String> = failures
                    .iter()
                    .take(5)
                    .map(|(what, count)| format!("{what} ({count})"))
                    .collect();
                format!(
                    "{} panels, {} questions; not answered: {}.",
                    board.panels,
                    board.questions,
                    told.join(", ")
                )
            }
        };
        page = page.picture(&board.svg, &caption);
    }
    page.footer(footer).render()
}
