//! Load shedding: who is refused first, what the shares are of, and settings. In the spirit of failsafe-go's `priority`
//! and Netflix' `AbstractPartitionedLimiterTest`, written afresh.

use std::time::Duration;

use proptest::prelude::*;
use resilience::{AdaptiveSettings, Admission, By, Priority, Shares, ShedSettings, Shedder, Verdict};
use tokio::time::advance;

fn fixed(limit: usize) -> ShedSettings {
    ShedSettings {
        limit: Some(limit),
        ..ShedSettings::default()
    }
}

/// Fills the server with one priority; how many came in.
fn fill(shedder: &Shedder, priority: Priority) -> Vec<Admission> {
    std::iter::from_fn(|| shedder.admit(priority).ok()).collect()
}

#[test]
fn nobody_is_refused_until_a_limit_is_set() {
    let shedder = Shedder::new("s", &ShedSettings::default()).unwrap();
    let inside: Vec<_> = (0..10_000).map(|_| shedder.admit(Priority::Low).unwrap()).collect();
    assert_eq!((shedder.snapshot().limit, shedder.snapshot().in_flight), (None, 10_000));
    shedder.reload(&fixed(100)).unwrap();
    assert_eq!(shedder.snapshot().in_flight, 10_000, "a reload forgets nobody");
    assert!(shedder.admit(Priority::Critical).is_err());
    drop(inside);
    assert!(shedder.admit(Priority::Critical).is_ok());
}

#[test]
fn each_priority_may_use_its_share() {
    for (priority, share) in [
        (Priority::Critical, 100),
        (Priority::High, 90),
        (Priority::Normal, 80),
        (Priority::Low, 50),
    ] {
        let shedder = Shedder::new("s", &fixed(100)).unwrap();
        let inside = fill(&shedder, priority);
        assert_eq!(inside.len(), share, "{priority:?}");
        let refused = shedder.admit(priority).unwrap_err();
        assert_eq!((refused.by, &*refused.name), (By::Shed, "s"));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
    }
}

#[test]
fn what_matters_less_is_refused_first_and_what_matters_more_still_comes_in() {
    let shedder = Shedder::new("s", &fixed(10)).unwrap();
    let low = fill(&shedder, Priority::Low);
    let normal = fill(&shedder, Priority::Normal);
    let high = fill(&shedder, Priority::High);
    let critical = fill(&shedder, Priority::Critical);
    assert_eq!((low.len(), normal.len(), high.len(), critical.len()), (5, 3, 1, 1));
    let snapshot = shedder.snapshot();
    assert_eq!((snapshot.limit, snapshot.in_flight), (Some(10), 10));
    for priority in Priority::ALL {
        assert_eq!(snapshot.shed[priority.as_str()], 1, "{priority:?}");
    }
}

#[test]
fn every_count_is_there_from_the_start() {
    let shed = Shedder::new("s", &fixed(10)).unwrap().snapshot().shed;
    assert_eq!(
        shed.into_iter().collect::<Vec<_>>(),
        [("critical", 0), ("high", 0), ("low", 0), ("normal", 0)]
    );
}

#[test]
fn everybody_has_a_share_in_a_limit_of_one() {
    let shedder = Shedder::new("s", &fixed(1)).unwrap();
    let inside = shedder.admit(Priority::Low).unwrap();
    assert!(shedder.admit(Priority::Critical).is_err());
    drop(inside);
    assert!(shedder.admit(Priority::Low).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_finds_itself_is_shared_out_too() {
    let adaptive = AdaptiveSettings::default();
    let settings = ShedSettings {
        adaptive: Some(adaptive),
        ..ShedSettings::default()
    };
    let shedder = Shedder::new("s", &settings).unwrap();
    assert_eq!(fill(&shedder, Priority::Low).len(), 10);
    assert_eq!(fill(&shedder, Priority::Critical).len(), 20);
    // Steady latency under full use: it rises.
    for _ in 0..500 {
        let inside = fill(&shedder, Priority::Critical);
        advance(Duration::from_millis(50)).await;
        for mut admission in inside {
            admission.answered(Verdict::Success);
            admission.answered(Verdict::Overload { hint: None });
        }
    }
    let risen = shedder.snapshot().limit.unwrap();
    assert!(risen > 100, "{risen}");
    assert_eq!(
        fill(&shedder, Priority::Low).len(),
        (risen as f64 * 0.5).round() as usize
    );
    // Overload: it falls.
    let inside = fill(&shedder, Priority::Critical);
    for mut admission in inside {
        admission.answered(Verdict::Overload { hint: None });
    }
    let fallen = shedder.snapshot().limit.unwrap();
    assert!((risen * 8 / 10..risen).contains(&fallen), "{fallen}");
    shedder.reload(&fixed(30)).unwrap();
    assert_eq!(shedder.snapshot().limit, Some(30));
}

#[test]
fn a_priority_has_names_and_numbers() {
    for (text, priority) in [
        ("critical", Priority::Critical),
        ("HIGH", Priority::High),
        (" Normal ", Priority::Normal),
        ("low", Priority::Low),
        ("0", Priority::Critical),
        ("1", Priority::High),
        ("2", Priority::Normal),
        ("3", Priority::Low),
        ("255", Priority::Low),
    ] {
        assert_eq!(text.parse(), Ok(priority), "{text}");
    }
    for text in ["", "urgent", "-1", "256", "1.5"] {
        assert!(text.parse::<Priority>().is_err(), "{text}");
    }
    assert_eq!(Priority::default(), Priority::Normal);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_key() {
    type Change = fn(&mut ShedSettings);
    let cases: [(&str, Change); 9] = [
        ("shed.limit", |s| s.limit = Some(0)),
        ("shed.limit", |s| s.limit = Some(usize::MAX)),
        ("shed.limit", |s| s.adaptive = Some(AdaptiveSettings::default())),
        ("concurrency_limit.min", |s| {
            s.limit = None;
            s.adaptive = Some(AdaptiveSettings {
                min: 0,
                ..AdaptiveSettings::default()
            });
        }),
        ("shed.shares.low", |s| s.shares.low = 0.0),
        ("shed.shares.high", |s| s.shares.high = f64::NAN),
        ("shed.shares.critical", |s| s.shares.critical = 1.1),
        ("shed.shares.normal", |s| s.shares.normal = 0.95),
        ("shed.retry_after", |s| s.retry_after = Duration::ZERO),
    ];
    for (key, change) in cases {
        let mut settings = fixed(10);
        change(&mut settings);
        let error = Shedder::new("s", &settings).unwrap_err();
        assert_eq!((error.name.as_str(), error.key.as_str()), ("s", key));
        let kept = Shedder::new("s", &fixed(10)).unwrap();
        assert!(kept.reload(&settings).is_err());
        assert_eq!(kept.snapshot().limit, Some(10));
    }
}

proptest! {
    /// Against the plain rule: a request comes in if fewer are inside than its share of the limit.
    #[test]
    fn a_request_comes_in_if_its_share_has_room(
        limit in 1..40_usize,
        mut shares in proptest::collection::vec(0.01..=1.0_f64, 4),
        steps in proptest::collection::vec((any::<bool>(), 0..4_u8), 0..300),
    ) {
        shares.sort_by(|left, right| right.total_cmp(left));
        let settings = ShedSettings {
            shares: Shares { critical: shares[0], high: shares[1], normal: shares[2], low: shares[3] },
            ..fixed(limit)
        };
        let shedder = Shedder::new("s", &settings).unwrap();
        let (mut inside, mut shed) = (Vec::new(), [0_u64; 4]);
        for (comes, level) in steps {
            if comes {
                let room = ((limit as f64 * shares[usize::from(level)]).round() as usize).max(1);
                let admitted = shedder.admit(Priority::from(level)).ok();
                prop_assert_eq!(admitted.is_some(), inside.len() < room);
                shed[usize::from(level)] += u64::from(admitted.is_none());
                inside.extend(admitted);
            } else {
                inside.pop();
            }
            prop_assert_eq!(shedder.snapshot().in_flight, inside.len());
        }
        for priority in Priority::ALL {
            prop_assert_eq!(shedder.snapshot().shed[priority.as_str()], shed[priority as usize]);
        }
    }
}

#[test]
fn settings_are_read_from_toml_and_unknown_keys_are_refused() {
    let text = "retry_after = '2s'\nshares = { low = 0.3 }\nadaptive = { max = 400, window = '250ms' }";
    let settings: ShedSettings = toml::from_str(text).unwrap();
    let adaptive = AdaptiveSettings {
        max: 400,
        window: Duration::from_millis(250),
        ..AdaptiveSettings::default()
    };
    let shares = Shares {
        low: 0.3,
        ..Shares::default()
    };
    assert_eq!((settings.limit, settings.adaptive), (None, Some(adaptive)));
    assert_eq!(
        (settings.shares, settings.retry_after),
        (shares, Duration::from_secs(2))
    );
    for text in [
        "limits = 1",
        "shares = { lowest = 1 }",
        "adaptive = { window = 3 }",
        "limit = -1",
    ] {
        assert!(toml::from_str::<ShedSettings>(text).is_err(), "{text}");
    }
    let settings: resilience::BulkheadSettings = toml::from_str("limit = 3\nmax_wait = '1s'").unwrap();
    assert_eq!(
        (settings.limit, settings.queue, settings.max_wait),
        (3, 100, Some(Duration::from_secs(1)))
    );
}
