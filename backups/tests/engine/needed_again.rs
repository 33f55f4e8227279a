//! Packs that were marked to be deleted and that a snapshot needs, because whoever made it was away meanwhile: the check
//! warns of them, the next prune keeps them. What a prune does with marks otherwise is in `prune`.

use backups::prune::Amount;
use backups::store::{StoreKey, list_all};
use backups::{BackupReport, Finding, Object, Problem, Severity};

use crate::prune::Yard;
use crate::world::*;

/// A snapshot that was forgotten while a prune marked what it needs, and that is there again. How many packs are marked.
async fn marked_and_needed(yard: &Yard) -> (BackupReport, Amount) {
    std::fs::create_dir_all(yard.source().join("folder")).unwrap();
    yard.write("folder/file", &noise(1, 2 << 20));
    let away = yard.save().await;
    let amount = marked_beside(yard, &away).await;
    (away, amount)
}

/// The same with a snapshot that is there.
async fn marked_beside(yard: &Yard, away: &BackupReport) -> Amount {
    let key = StoreKey::new(format!("snapshots/{}", away.snapshot)).unwrap();
    let file = yard.store.get(&key).await.unwrap();
    yard.forget(&away.snapshot).await;
    let marked = yard.prune().await.figures.marked;
    assert!(marked.packs >= 2, "{marked:?}");
    yard.store.put(&key, file).await.unwrap();
    marked
}

/// To restic, which knows nothing of marks, such a snapshot is lost; we can read it, and say that it hangs by a thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_warns_of_what_is_needed_and_only_in_packs_that_are_marked() {
    let yard = Yard::new().await;
    let (away, marked) = marked_and_needed(&yard).await;
    let all_are = |findings: &[Finding], problem: fn(&Problem) -> bool, severity| {
        assert_eq!(findings.len() as u64, marked.packs, "{findings:?}");
        for finding in findings {
            assert!(matches!(finding.object, Object::Pack(_)), "{finding:?}");
            assert!(problem(&finding.problem), "{finding:?}");
            assert_eq!(finding.severity, severity);
        }
    };
    let is_note = |problem: &Problem| *problem == Problem::ToBeDeleted;
    let is_warning = |problem: &Problem| matches!(problem, Problem::NeededAgain { since: Some(_) });
    let report = check(&yard.repository).await;
    assert!(report.is_sound());
    all_are(&report.findings, is_warning, Severity::Warning);
    let day = yard.store.time().await.unwrap().strftime("%F").to_string();
    for finding in &report.findings {
        assert_eq!(finding.snapshots, [away.snapshot]);
        let text = finding.problem.to_string();
        assert!(text.starts_with(&format!("marked for deletion on {day}T")), "{text}");
        assert!(text.ends_with("the next prune will keep it"), "{text}");
    }
    // Trees are reached by directories, the data by its file.
    let mut paths = report.findings.iter().map(|finding| finding.path.clone().unwrap());
    assert!(paths.any(|path| path.ends_with("folder/file")));
    yard.restores(&away).await;
    if let Some(restic) = Restic::find("a_check_warns_of_what_is_needed_and_only_in_packs_that_are_marked") {
        let judged = restic.run(&yard.export("marked").await, PASSWORD, &["check"]);
        assert!(!judged.status.success(), "it is lost to restic");
    }

    // Another backup stores it again: then nothing hangs by the marked packs, which will go.
    yard.save().await;
    all_are(&check(&yard.repository).await.findings, is_note, Severity::Note);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_keeps_what_the_check_warned_of() {
    let yard = Yard::new().await;
    let (away, marked) = marked_and_needed(&yard).await;
    let warned = check(&yard.repository).await.findings;
    assert_eq!(warned.len() as u64, marked.packs);
    // Within the grace and after it.
    for hours in [0, 25] {
        yard.pass(hours);
        let figures = yard.prune().await.figures;
        assert_eq!((figures.recovered, figures.deleted), (marked, Amount::default()));
        assert_eq!(check(&yard.repository).await.findings, []);
        yard.restores(&away).await;
        marked_beside(&yard, &away).await;
    }
    yard.prune().await;
    if let Some(restic) = Restic::find("a_prune_keeps_what_the_check_warned_of") {
        restic.ok(&yard.export("kept").await, PASSWORD, &["check", "--read-data"]);
    }
}

/// A mark is no comfort where the pack is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_marked_and_gone_is_lost() {
    let yard = Yard::new().await;
    let (away, _) = marked_and_needed(&yard).await;
    for entry in list_all(&*yard.store, "data/").await.unwrap() {
        yard.store.delete(&entry.key).await.unwrap();
    }
    let report = check(&yard.repository).await;
    assert!(!report.is_sound());
    for finding in &report.findings {
        assert_eq!(
            (finding.severity, &finding.snapshots[..]),
            (Severity::Error, &[away.snapshot][..])
        );
    }
}
