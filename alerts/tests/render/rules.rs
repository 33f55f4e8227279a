//! Rules are taken by promtool, and their tests are passed; a rule that is changed for the worse fails them.

use alerts::render::{File, Settings, render};
use manifest::landscape::Landscape;

use crate::judges::{Promtool, write};
use crate::landscapes;

fn files(landscape: &Landscape) -> Vec<File> {
    render(landscape, &Settings::default()).unwrap().prometheus()
}

#[test]
fn promtool_takes_the_rules_and_passes_their_tests() {
    let Some(promtool) = Promtool::find("promtool_takes_the_rules_and_passes_their_tests") else {
        return;
    };
    for landscape in [landscapes::reference(), landscapes::cluster()] {
        let (folder, files) = (tempfile::tempdir().unwrap(), files(&landscape));
        write(folder.path(), &files);
        promtool.check(folder.path(), &files).unwrap();
        promtool.test_each(folder.path(), &files);
    }
}
