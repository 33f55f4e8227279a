//! Where a log may end that its primary did not choose.

use std::fs;

use backups::pitr::postgres::archive::File;
use jiff::Timestamp;

use crate::damage::Patient;
use crate::scene::{Scene, archived, restored, rows_in};

/// The last thing that was received is the end of a segment before it was full; the rest of that is nothing, and was on its
/// way when the primary was lost. All is restored, and the log goes on behind it without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_with_a_switch_goes_on() {
    let test = "a_log_that_ends_with_a_switch_goes_on";
    let Some(mut scene) = Scene::start(test).await else {
        return;
    };
    let rows = scene.cluster.numbered(1000).await;
    rows.reaches(100).await;
    rows.rest().await;
    scene.cluster.switch_wal().await;
    scene.ledger.add(rows.acknowledged(), rows.attempted());
    scene.until_promised(Timestamp::now());
    if let Some(mut follower) = scene.follower.take() {
        follower.kill();
    }
    scene.cluster.wipe();
    let patient = Patient::new(&scene.sandbox).await;
    let size = patient.held.segment_size;
    // What came behind the switch is taken away again, down to the page with the switch.
    for path in archived(&scene.sandbox)
        .into_iter()
        .filter(|(name, _)| name.contains(".partial-"))
    {
        fs::remove_file(path.1).expect("our own file");
    }
    let last = *patient.held.segments.iter().next_back().expect("a segment");
    let mut content = patient.content(&File::Segment(last)).await;
    let used = content.iter().rposition(|byte| *byte != 0).expect("a log") + 1;
    let page = used.div_ceil(8192);
    assert!(page * 8192 < content.len(), "it ends early");
    content.truncate(page * 8192);
    let (system, archive) = (patient.system, &patient.archive);
    archive
        .remove(system, &File::Segment(last), size)
        .await
        .expect("it goes");
    archive
        .put_partial(system, last, size, content.into())
        .await
        .expect("it is there");
    for path in archived(&scene.sandbox)
        .into_iter()
        .filter(|(name, _)| name.starts_with("standing-"))
    {
        fs::remove_file(path.1).expect("our own file");
    }

    for round in 0..2 {
        restored(&scene.sandbox, scene.cluster.data(), &[]);
        scene.cluster.start_again().await;
        assert_eq!(
            scene.cluster.numbered_rows().await,
            scene.ledger.last(),
            "round {round}"
        );
        let rows = scene.cluster.numbered(1000).await;
        rows.reaches(scene.ledger.attempted + 100).await;
        rows.rest().await;
        scene.ledger.add(rows.acknowledged(), rows.attempted());
        scene.until_promised(Timestamp::now());
        if let Some(follower) = scene.follower.take() {
            assert!(!follower.has_told("lost"), "round {round}: {}", follower.said());
            follower.stop();
        }
        let out = scene.sandbox.path("out");
        restored(&scene.sandbox, &out, &[]);
        assert_eq!(rows_in(&out, test).await, scene.ledger.last(), "round {round}");
        fs::remove_dir_all(out).expect("our own folder");
        scene.cluster.wipe();
    }
}
