//! The boards of others that we have are drawn, whatever they hold; without data, since nothing runs that they ask about.

use dashboards::draw::data::Fixture;
use dashboards::draw::{Board, Settings, draw};
use pictures::png;

use crate::{BEGIN, judged};

#[tokio::test]
async fn every_board_of_the_mixins_is_drawn_without_data() {
    let Some(folder) = peers::shared_data("mixins", "every_board_of_the_mixins_is_drawn_without_data") else {
        return;
    };
    let empty = Fixture::empty(BEGIN, BEGIN + 3600.0);
    let (mut boards, mut panels) = (0, 0);
    for mixin in std::fs::read_dir(folder).unwrap() {
        let Ok(files) = std::fs::read_dir(mixin.unwrap().path().join("dashboards")) else {
            continue;
        };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let board = Board::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut settings = Settings::new(BEGIN, BEGIN + 3600.0);
            settings.unfold = true;
            let drawing = draw(&board, &empty, &settings, &|_| {}).await;
            let words = judged(drawing.svg.as_str());
            assert!(drawing.panels > 0, "{}", file.display());
            // What others than Prometheus are asked is not drawn, and said so.
            let (said, unsaid) = match drawing.questions {
                0 => ("asks", "no data"),
                _ => ("no data", "nothing of the kind"),
            };
            let says = |what: &str| words.iter().any(|word| word.contains(what));
            assert!(says(said) && !says(unsaid), "{}: {words:?}", file.display());
            // No text of a query may still have a variable that every Grafana knows.
            boards += 1;
            panels += drawing.panels;
            if boards % 10 == 0 {
                png(&drawing.svg, 0.2).unwrap();
            }
        }
    }
    assert_eq!(boards, 77);
    assert!(panels > 900, "{panels}");
}
