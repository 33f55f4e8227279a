//! The pictures of docs/guides/resilience.md: each policy runs against a dependency that follows a script, under a paused
//! clock, and what happened is drawn. A picture that differs from the file is a failure, so that the guide cannot show
//! what the code does not do; `UPDATE_PICTURES=1` writes the files anew.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures of pictures are small"
)]

mod failures;
mod latency;
mod load;
mod plot;
mod scene;

use std::path::Path;
use std::time::Duration;

use plot::Picture;

/// One test for all: they share the clock, and where a window's buckets begin depends on it.
#[tokio::test(start_paused = true)]
async fn the_guides_pictures_are_what_the_policies_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/resilience");
    let mut drawn = Vec::new();
    macro_rules! draw {
        ($($name:literal: $scene:path;)*) => {$(
            scene::next_hour().await;
            drawn.push(($name, $scene().await));
        )*};
    }
    draw! {
        "timeout": latency::timeout;
        "retry": failures::retry;
        "breaker": failures::breaker;
        "bulkhead": load::bulkhead;
        "rate-limit": load::rate_limit;
        "adaptive-limit": load::adaptive_limit;
        "shedding": load::shedding;
        "throttle": load::throttle;
        "hedging": latency::hedging;
        "stale": failures::stale;
    }
    let update = std::env::var_os("UPDATE_PICTURES").is_some();
    let mut differ = Vec::new();
    for (name, picture) in &drawn {
        let file = folder.join(format!("{name}.svg"));
        let svg = Picture::svg(picture);
        if update {
            std::fs::write(&file, &svg).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != svg {
            differ.push(*name);
        }
    }
    assert!(
        differ.is_empty(),
        "{differ:?} no longer show what happens; UPDATE_PICTURES=1 draws them anew, then look at them"
    );
    let page = std::fs::read_to_string(folder.with_extension("md")).unwrap();
    for (name, _) in &drawn {
        assert!(
            page.contains(&format!("](resilience/{name}.svg)")),
            "the guide does not show {name}"
        );
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
