//! Stale answers as their users see them, under a paused clock.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use resilience::{
    Answer, Breaker, By, Error, FallbackReason, Kind, Pipeline, Safety, Stale, StaleCache, StaleSettings, Verdict,
};
use tokio::time::{advance, sleep};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Down,
    NotFound,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn cache(capacity: usize, max_age: Duration) -> StaleCache<&'static str, u32> {
    StaleCache::new("prices", StaleSettings { capacity, max_age }).unwrap()
}

/// Answers of 500 and above are failures as well, as a response with such a status would be.
fn meaning(result: Result<&u32, &Trouble>) -> Verdict {
    match result {
        Ok(500..) | Err(Trouble::Down) => Verdict::Failure(Kind::Transient),
        Ok(404) | Err(Trouble::NotFound) => Verdict::Ignore,
        Ok(_) => Verdict::Success,
    }
}

async fn ask(
    cache: &StaleCache<&'static str, u32>,
    policy: &Pipeline,
    result: Result<u32, Trouble>,
) -> Result<Answer<u32>, Error<Trouble>> {
    let op = |_| async move { result };
    cache.call_with(policy, Safety::Idempotent, &meaning, "apple", op).await
}

fn stale(value: u32, age: u64, reason: FallbackReason) -> Answer<u32> {
    let stale = Stale { value, age: secs(age) };
    Answer::Stale { stale, reason }
}

fn plain() -> Pipeline {
    Pipeline::builder("prices").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_answered_with_what_was_good_before_and_its_age() {
    let (cache, policy) = (cache(10, secs(60)), plain());
    assert!(matches!(
        ask(&cache, &policy, Err(Trouble::Down)).await,
        Err(Error::Inner(Trouble::Down))
    ));
    assert_eq!(ask(&cache, &policy, Ok(1)).await.unwrap(), Answer::Fresh(1));
    advance(secs(20)).await;
    let answer = ask(&cache, &policy, Err(Trouble::Down)).await.unwrap();
    assert_eq!(answer, stale(1, 20, FallbackReason::Failure));
    assert!(answer.is_stale());
    // A new good answer takes its place; an answer that is a failure does not, and is covered too.
    assert_eq!(ask(&cache, &policy, Ok(2)).await.unwrap(), Answer::Fresh(2));
    advance(secs(5)).await;
    let answer = ask(&cache, &policy, Ok(503)).await.unwrap();
    assert_eq!(answer, stale(2, 5, FallbackReason::Failure));
    assert_eq!(answer.into_value(), 2);
    let figures = cache.snapshot();
    assert_eq!(figures.fallbacks, [("rejected", 0), ("timeout", 0), ("failure", 2)]);
    assert_eq!((figures.missed, figures.entries), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn errors_that_are_answers_are_given_back_as_they_are() {
    let (cache, policy) = (cache(10, secs(60)), plain());
    ask(&cache, &policy, Ok(1)).await.unwrap();
    let error = ask(&cache, &policy, Err(Trouble::NotFound)).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(Trouble::NotFound));
    assert_eq!(ask(&cache, &policy, Ok(404)).await.unwrap(), Answer::Fresh(404));
    // What is ignored is not remembered either.
    assert_eq!(cache.get("apple").map(|stale| stale.value), Some(1));
    assert_eq!(cache.snapshot().missed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_nothing_remembered_is_the_answer() {
    let (cache, policy) = (cache(10, secs(60)), plain());
    assert_eq!(ask(&cache, &policy, Ok(500)).await.unwrap(), Answer::Fresh(500));
    assert_eq!(cache.snapshot().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_time_limits_are_reasons_of_their_own() {
    let cache = cache(10, secs(60));
    let policy = Pipeline::builder("prices")
        .attempt_timeout(secs(1))
        .breaker(Breaker::builder("prices"))
        .build()
        .unwrap();
    let hang = |_| async {
        sleep(secs(10)).await;
        Ok::<u32, Trouble>(9)
    };
    assert!(cache.call(&policy, "apple", hang).await.unwrap_err().is_timeout());
    cache.put("apple", 1);
    let answer = cache.call(&policy, "apple", hang).await.unwrap();
    assert_eq!(answer, stale(1, 1, FallbackReason::Timeout));
    policy.breaker().unwrap().force_open();
    let answer = cache.call(&policy, "apple", hang).await.unwrap();
    assert_eq!(answer, stale(1, 1, FallbackReason::Rejected));
    let refused = cache.call(&policy, "pear", hang).await.unwrap_err();
    assert!(matches!(refused, Error::Rejected(rejected) if rejected.by == By::Breaker));
    assert_eq!(
        cache.snapshot().fallbacks,
        [("rejected", 1), ("timeout", 1), ("failure", 0)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_no_answer() {
    let cache = cache(10, secs(60));
    cache.put("apple", 1);
    advance(secs(60)).await;
    assert_eq!(
        cache.get("apple"),
        Some(Stale {
            value: 1,
            age: secs(60)
        })
    );
    advance(Duration::from_millis(1)).await;
    assert_eq!(cache.get("apple"), None);
    assert_eq!(cache.snapshot().entries, 0, "nor is it kept");
}

#[test]
fn the_bound_holds_and_what_is_asked_for_stays() {
    let cache: StaleCache<u64, u64> = StaleCache::new(
        "prices",
        StaleSettings {
            capacity: 50,
            max_age: secs(60),
        },
    )
    .unwrap();
    for key in 0..10_000 {
        cache.put(key, key);
        // The first one is asked for all the time.
        assert_eq!(cache.get(&0).map(|stale| stale.value), Some(0), "after {key}");
    }
    assert_eq!(cache.snapshot().entries, 50);
    let large: StaleCache<u64, u64> = StaleCache::new(
        "prices",
        StaleSettings {
            capacity: 1_600,
            max_age: secs(60),
        },
    )
    .unwrap();
    (0..20_000).for_each(|key| large.put(key, key));
    assert_eq!(large.snapshot().entries, 1_600);
}

#[test]
fn a_reload_keeps_what_fits() {
    let cache = cache(3, secs(60));
    for (value, key) in ["a", "b", "c"].into_iter().enumerate() {
        cache.put(key, value as u32);
    }
    cache.get("c").unwrap();
    cache
        .reload(StaleSettings {
            capacity: 1,
            max_age: secs(60),
        })
        .unwrap();
    assert_eq!(cache.snapshot().entries, 1);
    assert_eq!(cache.get("c").map(|stale| stale.value), Some(2), "it was asked for");
    assert!(
        cache
            .reload(StaleSettings {
                capacity: 0,
                max_age: secs(60)
            })
            .is_err()
    );
    assert_eq!(cache.snapshot().capacity, 1);
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_key() {
    let bad = [
        (
            "stale.capacity",
            StaleSettings {
                capacity: 0,
                max_age: secs(1),
            },
        ),
        (
            "stale.max_age",
            StaleSettings {
                capacity: 1,
                max_age: Duration::ZERO,
            },
        ),
    ];
    for (key, settings) in bad {
        let error = StaleCache::<u32, u32>::new("prices", settings).unwrap_err();
        assert_eq!((&*error.name, &*error.key), ("prices", key));
    }
    let read: StaleSettings = toml::from_str("capacity = 5\nmax_age = \"10m\"").unwrap();
    assert_eq!(
        read,
        StaleSettings {
            capacity: 5,
            max_age: secs(600)
        }
    );
}
