//! What every store of events does, whatever it stores them in. `make` gives two handles of one new and empty store, as
//! two instances of the service hold them.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::event::{Failure, Texts};

/// Checks one implementation.
pub(super) async fn check<S: Store, F: Future<Output = (S, S)>>(make: impl Fn() -> F) {
    an_event_takes_effect_once(make().await).await;
    an_id_stands_for_one_event(make().await).await;
    a_failed_event_is_tried_later_and_later(make().await).await;
    the_last_attempt_makes_a_dead_letter(make().await).await;
    what_cannot_be_understood_is_dead_at_once(make().await).await;
    a_dead_letter_is_replayed(make().await).await;
    pages_hold_everything_once(make().await).await;
    many_at_once_have_one_effect_each(make().await).await;
}

const RETRY: Retry = Retry {
    attempts: 3,
    base: Duration::from_secs(1),
    cap: Duration::from_mins(1),
};

fn at(seconds: i64) -> Timestamp {
    "2026-11-21T10:00:00.123456Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn event(subject: &str) -> Event {
    Event {
        id: Uuid::new_v4(),
        kind: "order.paid".into(),
        version: 1,
        subject: subject.into(),
        source: "orders".into(),
        occurred_at: at(-5),
        payload: br#"{"total_cents":5,"currency":"EUR"}"#.to_vec(),
    }
}

/// Fails the first `0` calls in a way that passes, then renders.
struct Failing(AtomicU32);

impl Handler for Failing {
    fn handle(&self, event: &Event) -> Result<String, Failure> {
        let left = self.0.load(Ordering::SeqCst);
        if left > 0 {
            self.0.store(left - 1, Ordering::SeqCst);
            return Err(Failure::Passing(format!("line is down\n{left}")));
        }
        Texts.handle(event)
    }
}

fn failing(times: u32) -> Arc<dyn Handler> {
    Arc::new(Failing(AtomicU32::new(times)))
}

async fn accept(store: &impl Store, event: &Event) -> Accepted {
    store.accept(event.clone(), None, at(0)).await.unwrap()
}

async fn process(store: &impl Store, handler: Arc<dyn Handler>, now: Timestamp) -> Processed {
    store.process(100, handler, RETRY, now).await.unwrap()
}

async fn an_event_takes_effect_once<S: Store>((one, two): (S, S)) {
    let event = event("o1");
    assert_eq!(
        accept(&one, &event).await,
        Accepted {
            duplicate: false,
            state: EventState::Pending
        }
    );
    assert_eq!(
        accept(&two, &event).await,
        Accepted {
            duplicate: true,
            state: EventState::Pending
        }
    );
    let done = process(&two, failing(0), at(1)).await;
    assert_eq!(
        done,
        Processed {
            sent: 1,
            ..Processed::default()
        }
    );
    assert_eq!(process(&one, failing(0), at(2)).await, Processed::default());
    assert_eq!(
        accept(&one, &event).await,
        Accepted {
            duplicate: true,
            state: EventState::Processed
        }
    );
    let page = one.notifications(0, 10, None).await.unwrap();
    let [notification] = &page.items[..] else {
        panic!("{page:?}")
    };
    assert_eq!((notification.event_id, notification.created_at), (event.id, at(1)));
    assert_eq!(notification.text, "Your order o1 (0.05 EUR) has been paid.");
    let wanted = Stats {
        events: 1,
        processed: 1,
        notifications: 1,
        duplicates: 2,
        ..Stats::default()
    };
    assert_eq!(two.stats().await.unwrap(), wanted);
}

async fn an_id_stands_for_one_event<S: Store>((one, two): (S, S)) {
    let first = event("o1");
    accept(&one, &first).await;
    for other in [
        Event {
            subject: "o2".into(),
            ..first.clone()
        },
        Event {
            kind: "order.failed".into(),
            ..first.clone()
        },
        Event {
            version: 2,
            ..first.clone()
        },
        Event {
            source: "others".into(),
            ..first.clone()
        },
        Event {
            payload: b"{}".to_vec(),
            ..first.clone()
        },
    ] {
        let error = two.accept(other, None, at(0)).await.unwrap_err();
        assert!(matches!(error, StoreError::IdReused), "{error}");
    }
    let resent = Event {
        occurred_at: at(9),
        ..first
    };
    assert!(
        accept(&two, &resent).await.duplicate,
        "a publisher that tells another time of the same is forgiven"
    );
    assert_eq!(one.stats().await.unwrap().events, 1);
}

async fn a_failed_event_is_tried_later_and_later<S: Store>((one, two): (S, S)) {
    accept(&one, &event("o1")).await;
    let handler = failing(2);
    let first = process(&one, Arc::clone(&handler), at(0)).await;
    assert_eq!(
        first,
        Processed {
            retried: 1,
            next_due: Some(at(1)),
            ..Processed::default()
        }
    );
    let early = process(&two, Arc::clone(&handler), at(0)).await;
    assert_eq!(
        early,
        Processed {
            next_due: Some(at(1)),
            ..Processed::default()
        }
    );
    let second = process(&two, Arc::clone(&handler), at(1)).await;
    assert_eq!(
        second,
        Processed {
            retried: 1,
            next_due: Some(at(3)),
            ..Processed::default()
        }
    );
    assert_eq!(two.stats().await.unwrap().notifications, 0);
    let third = process(&one, handler, at(3)).await;
    assert_eq!(
        third,
        Processed {
            sent: 1,
            ..Processed::default()
        }
    );
}

async fn the_last_attempt_makes_a_dead_letter<S: Store>((one, two): (S, S)) {
    let event = event("o1");
    accept(&one, &event).await;
    let handler = failing(3);
    for seconds in [0, 10] {
        assert_eq!(process(&one, Arc::clone(&handler), at(seconds)).await.retried, 1);
    }
    let last = process(&one, handler, at(20)).await;
    assert_eq!(
        last,
        Processed {
            dead: 1,
            ..Processed::default()
        }
    );
    let page = two.dead_letters(0, 10).await.unwrap();
    let letter = DeadLetter {
        event,
        reason: "attempts_exhausted".into(),
        detail: "line is down 1".into(),
        attempts: 3,
        dead_since: at(20),
    };
    assert_eq!(
        page,
        Page {
            items: vec![letter],
            next: None
        }
    );
    assert_eq!(
        process(&two, failing(0), at(1000)).await,
        Processed::default(),
        "it rests until it is replayed"
    );
}

async fn what_cannot_be_understood_is_dead_at_once<S: Store>((one, two): (S, S)) {
    let newer = Event {
        version: 9,
        ..event("o1")
    };
    let dead = Some((Reason::UnsupportedVersion, "x\u{1b}[31m".repeat(1000)));
    let accepted = one.accept(newer.clone(), dead.clone(), at(0)).await.unwrap();
    assert_eq!(
        accepted,
        Accepted {
            duplicate: false,
            state: EventState::Dead
        }
    );
    let again = two.accept(newer.clone(), dead, at(1)).await.unwrap();
    assert_eq!(
        again,
        Accepted {
            duplicate: true,
            state: EventState::Dead
        }
    );
    let letter = two.dead_letters(0, 10).await.unwrap().items.remove(0);
    assert_eq!(
        (letter.event, letter.reason.as_str(), letter.attempts),
        (newer, "unsupported_version", 0)
    );
    assert!(letter.detail.chars().count() <= 500 && !letter.detail.contains('\u{1b}'));
    let wanted = Stats {
        events: 1,
        dead: 1,
        duplicates: 1,
        ..Stats::default()
    };
    assert_eq!(one.stats().await.unwrap(), wanted);
}

async fn a_dead_letter_is_replayed<S: Store>((one, two): (S, S)) {
    let error = one.replay(Uuid::new_v4(), at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error}");
    let event = Event {
        kind: "order.eaten".into(),
        ..event("o1")
    };
    accept(&one, &event).await;
    let error = one.replay(event.id, at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotDead), "{error}");
    assert_eq!(process(&one, failing(0), at(0)).await.dead, 1);
    two.replay(event.id, at(5)).await.unwrap();
    assert!(one.dead_letters(0, 10).await.unwrap().items.is_empty());
    // Its attempts start anew: with the old ones counted, the second failure would be the last.
    struct Learned(Arc<dyn Handler>);
    impl Handler for Learned {
        fn handle(&self, event: &Event) -> Result<String, Failure> {
            self.0.handle(&Event {
                kind: "order.paid".into(),
                ..event.clone()
            })
        }
    }
    let learned: Arc<dyn Handler> = Arc::new(Learned(failing(2)));
    for seconds in [5, 10] {
        assert_eq!(process(&one, Arc::clone(&learned), at(seconds)).await.retried, 1);
    }
    assert_eq!(process(&one, learned, at(20)).await.sent, 1);
    let error = two.replay(event.id, at(30)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotDead), "{error}");
    let wanted = Stats {
        events: 1,
        processed: 1,
        notifications: 1,
        ..Stats::default()
    };
    assert_eq!(two.stats().await.unwrap(), wanted);
}

async fn pages_hold_everything_once<S: Store>((one, two): (S, S)) {
    assert_eq!(
        one.notifications(0, 5, None).await.unwrap(),
        Page {
            items: vec![],
            next: None
        }
    );
    for n in 0..20 {
        accept(&one, &event(&format!("o{}", n % 10))).await;
        let unknown = Event {
            kind: "unknown".into(),
            ..event(&format!("d{n}"))
        };
        two.accept(unknown, Some((Reason::UnknownType, String::new())), at(0))
            .await
            .unwrap();
    }
    let first = two.process(15, failing(0), RETRY, at(0)).await.unwrap();
    assert_eq!(
        (first.sent, first.next_due),
        (15, Some(at(0))),
        "no more than asked for, and the rest is due"
    );
    assert_eq!(process(&two, failing(0), at(0)).await.sent, 5);

    let (mut subjects, mut after, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = one.notifications(after, 10, None).await.unwrap();
        subjects.extend(page.items.into_iter().map(|notification| notification.subject));
        pages += 1;
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(pages, 2);
    assert_eq!(subjects, (0..20).map(|n| format!("o{}", n % 10)).collect::<Vec<_>>());

    let (mut subjects, mut after) = (Vec::new(), 0);
    loop {
        let page = one.dead_letters(after, 7).await.unwrap();
        subjects.extend(page.items.into_iter().map(|letter| letter.event.subject));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(subjects, (0..20).map(|n| format!("d{n}")).collect::<Vec<_>>());

    let strange = "x'); DROP TABLE events; --";
    accept(&one, &event(strange)).await;
    process(&one, failing(0), at(0)).await;
    for (subject, wanted) in [("o3", 2), ("o33", 0), ("%", 0), (strange, 1)] {
        let page = two.notifications(0, 100, Some(subject.into())).await.unwrap();
        assert_eq!(page.items.len(), wanted, "{subject}");
    }
}

async fn many_at_once_have_one_effect_each<S: Store>((one, two): (S, S)) {
    let (one, two) = (Arc::new(one), Arc::new(two));
    let events: Arc<Vec<Event>> = Arc::new((0..20).map(|n| event(&format!("o{n}"))).collect());
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (store, events) = (Arc::clone(if n % 2 == 0 { &one } else { &two }), Arc::clone(&events));
            tokio::spawn(async move {
                for event in events.iter() {
                    accept(&*store, event).await;
                    store.process(3, Arc::new(Texts), RETRY, at(1)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let page = one.notifications(0, 100, None).await.unwrap();
    let ids: HashSet<Uuid> = page.items.iter().map(|notification| notification.event_id).collect();
    assert_eq!((page.items.len(), ids.len()), (20, 20));
    let wanted = Stats {
        events: 20,
        processed: 20,
        notifications: 20,
        duplicates: 15 * 20,
        ..Stats::default()
    };
    assert_eq!(two.stats().await.unwrap(), wanted);
}
