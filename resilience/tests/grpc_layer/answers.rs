//! Every call counts once, by its trailers: outcomes, slow calls, places and probes.

use resilience::{Breaker, BreakerCounts, SlowCalls, State, ThrottleSettings};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use super::server::{Fixture, Frames, Reply, bare, fail, only, pushback, quick, secs};

#[tokio::test(start_paused = true)]
async fn a_call_counts_once() {
    use Code::{Internal, NotFound, Ok, Unavailable};
    type Set = fn(&mut BreakerCounts);
    let table: [(Reply, Set); 8] = [
        (Reply::Messages(2, Ok), |counts| counts.success = 1),
        (Reply::Messages(0, Ok), |counts| counts.success = 1),
        (Reply::Messages(2, Unavailable), |counts| counts.failure = 1),
        (Reply::Messages(1, Internal), |counts| counts.failure = 1),
        (Reply::Messages(1, NotFound), |counts| counts.ignored = 1),
        (fail(Internal), |counts| counts.failure = 1),
        (fail(NotFound), |counts| counts.ignored = 1),
        (Reply::Slow(secs(5), Ok), |counts| counts.success = 1),
    ];
    for (row, (reply, set)) in table.into_iter().enumerate() {
        let fixture = Fixture::start(&[reply], quick());
        fixture.watch().await;
        assert_eq!(fixture.outcomes(), only(set), "row {row}");
    }
    let fixture = Fixture::start(&[Reply::Answer], quick());
    fixture.check().await;
    assert_eq!(
        fixture.outcomes(),
        only(|counts| counts.success = 1),
        "a unary call too"
    );
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_timed_to_their_trailers() {
    let slow = SlowCalls {
        limit: secs(2),
        ratio: 1.0,
    };
    for (time, set) in [(1, (1, 0)), (3, (0, 1))] {
        let policy = quick().breaker(Breaker::builder("test").slow_calls(slow.limit, slow.ratio));
        let fixture = Fixture::start(&[Reply::Slow(secs(time), Code::Ok)], policy);
        fixture.watch().await;
        let (success, slow) = set;
        let wanted = only(|counts| (counts.success, counts.slow) = (success, slow));
        assert_eq!(fixture.outcomes(), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_bulkhead_is_kept_until_the_stream_ends() {
    let fixture = Fixture::start(&[Reply::Slow(secs(3), Code::Ok)], quick().bulkhead(1, 0));
    let places = || fixture.policy.snapshot().bulkhead.unwrap().in_flight;
    let mut client = fixture.client.clone();
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap();
    assert_eq!(places(), 1);
    assert_eq!(fixture.watch().await, (0, Code::ResourceExhausted));
    while stream.message().await.unwrap().is_some() {}
    assert_eq!(places(), 0);
    let stream = client.watch(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(places(), 1);
    drop(stream);
    assert_eq!(places(), 0);
}

/// In the spirit of linkerd2-proxy's `failure_accrual.rs`: one probe, and nobody beside it.
#[tokio::test(start_paused = true)]
async fn a_probe_holds_its_place_until_the_trailers() {
    for (code, state) in [(Code::Ok, State::Closed), (Code::Unavailable, State::Open)] {
        let breaker = Breaker::builder("test").min_calls(1).half_open(1, secs(30));
        let replies = [Reply::Messages(1, Code::Unavailable), Reply::Slow(secs(4), code)];
        let fixture = Fixture::start(&replies, quick().breaker(breaker));
        fixture.watch().await;
        let own = fixture.policy.breaker().unwrap();
        assert_eq!(own.state(), State::Open);
        tokio::time::advance(secs(10)).await;
        let mut client = fixture.client.clone();
        let mut probe = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(probe.message().await.unwrap().is_some());
        assert_eq!(own.state(), State::HalfOpen, "the headers and a message decide nothing");
        for _ in 0..3 {
            assert_eq!(fixture.watch().await, (0, Code::Unavailable));
        }
        assert_eq!(fixture.calls(), 2, "no other call took its place");
        while let Ok(Some(_)) = probe.message().await {}
        assert_eq!(own.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_place_back() {
    let breaker = Breaker::builder("test").min_calls(1).half_open(1, secs(30));
    let replies = [
        Reply::Messages(1, Code::Unavailable),
        Reply::Stop,
        Reply::Messages(1, Code::Ok),
    ];
    let fixture = Fixture::start(&replies, quick().breaker(breaker));
    fixture.watch().await;
    tokio::time::advance(secs(10)).await;
    drop(
        fixture
            .client
            .clone()
            .watch(HealthCheckRequest::default())
            .await
            .unwrap(),
    );
    assert_eq!(fixture.policy.breaker().unwrap().state(), State::HalfOpen);
    assert_eq!(fixture.watch().await, (1, Code::Ok));
    assert_eq!(fixture.policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_a_failure() {
    for reason in [h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR, h2::Reason::NO_ERROR] {
        let (_, calls, policy) = bare(vec![Frames::HeadersAndReset(reason), Frames::Answer], quick()).await;
        assert_eq!(calls, 1, "{reason:?}");
        let counts = policy.breaker().unwrap().snapshot().calls;
        assert_eq!(counts, only(|counts| counts.failure = 1), "{reason:?}");
    }
    let (code, calls, policy) = bare(vec![Frames::Headers(200, vec![])], quick()).await;
    assert_eq!((code == Code::Ok, calls), (false, 1), "headers alone, without a status");
    let counts = policy.breaker().unwrap().snapshot().calls;
    assert_eq!(counts, only(|counts| counts.failure = 1));
}

#[tokio::test(start_paused = true)]
async fn the_throttle_learns_of_every_refusal_and_of_every_end() {
    use Code::{Internal, Ok, ResourceExhausted, Unavailable};
    // What the dependency accepted, of one call that is not repeated.
    for (row, (reply, accepts)) in [
        (Reply::Messages(1, Ok), 1),
        (Reply::Messages(1, Unavailable), 0),
        (Reply::Messages(1, Internal), 1),
        (fail(ResourceExhausted), 0),
        (pushback(Unavailable, &["-1"]), 0),
        (pushback(ResourceExhausted, &["1", "1"]), 0),
    ]
    .into_iter()
    .enumerate()
    {
        let fixture = Fixture::start(&[reply], quick().throttle(ThrottleSettings::default()));
        fixture.watch().await;
        let throttle = fixture.policy.snapshot().throttle.unwrap();
        assert_eq!((throttle.requests, throttle.accepts), (1, accepts), "row {row}");
        assert_eq!(fixture.calls(), 1, "row {row}");
    }
}
