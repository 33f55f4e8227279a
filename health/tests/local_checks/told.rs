//! Checks of what a closure tells: breakers, outboxes, migrations; and what becomes of secrets on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use health::{
    Applied, BreakerCheck, Cause, Circuit, Difference, Failure, Migration, MigrationCheck, OutboxCheck, Reason, compare,
};
use proptest::prelude::*;

use crate::told;

#[tokio::test]
async fn an_open_breaker_warns_and_fails_where_asked_to() {
    for (circuit, default, strict) in [
        (Circuit::Closed, "pass", "pass"),
        (Circuit::HalfOpen, "pass", "pass"),
        (Circuit::Open, "warn refused", "fail refused"),
        (Circuit::ForcedOpen, "warn refused", "fail refused"),
        (Circuit::ForcedClosed, "warn error", "warn error"),
    ] {
        assert_eq!(told(&BreakerCheck::new(move || circuit)).await, default, "{circuit:?}");
        let check = BreakerCheck::new(move || circuit).fail_when_open();
        assert_eq!(told(&check).await, strict, "{circuit:?}");
    }
    let looks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&looks);
    let check = BreakerCheck::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Circuit::Open
    });
    assert_eq!(looks.load(Ordering::SeqCst), 0);
    told(&check).await;
    assert_eq!(looks.load(Ordering::SeqCst), 1, "one look a run");
}

#[tokio::test]
async fn an_outbox_is_judged_by_its_oldest_message() {
    let seconds = Duration::from_secs;
    for (oldest, expected) in [
        (None, "pass"),
        (Some(seconds(0)), "pass"),
        (Some(seconds(60)), "pass"),
        (Some(seconds(61)), "warn stale"),
        (Some(seconds(600)), "warn stale"),
        (Some(seconds(601)), "fail stale"),
    ] {
        let check = OutboxCheck::new(move || async move { Ok::<_, std::io::Error>(oldest) });
        assert_eq!(told(&check).await, expected, "{oldest:?}");
    }
    let other = OutboxCheck::new(|| async { Ok::<_, Failure>(Some(Duration::from_secs(5))) });
    assert_eq!(
        told(&other.warn_after(seconds(1)).fail_after(seconds(4))).await,
        "fail stale"
    );
    let unreadable = OutboxCheck::new(|| async { Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)) });
    assert_eq!(told(&unreadable).await, "fail refused");
}

fn migrations(numbered: &[(i64, u8)]) -> Vec<Migration> {
    let of = |&(version, checksum): &(i64, u8)| Migration {
        version,
        checksum: vec![checksum],
    };
    numbered.iter().map(of).collect()
}

fn applied(rows: &[(i64, u8, bool)]) -> Vec<Applied> {
    let of = |&(version, checksum, success): &(i64, u8, bool)| Applied {
        version,
        checksum: vec![checksum],
        success,
    };
    rows.iter().map(of).collect()
}

#[tokio::test]
async fn a_schema_passes_when_it_is_the_programs() {
    let program = [(10, 1), (20, 2)];
    for (rows, expected, why) in [
        (&[(10, 1, true), (20, 2, true)][..], "pass", "the same"),
        (&[(20, 2, true), (10, 1, true)], "pass", "in another order"),
        (&[], "fail protocol", "nothing was applied"),
        (&[(10, 1, true)], "fail protocol", "one is missing"),
        (&[(10, 1, true), (20, 2, false)], "fail protocol", "one failed"),
        (&[(10, 9, true), (20, 2, true)], "fail protocol", "one has another text"),
        (
            &[(10, 1, true), (20, 2, true), (30, 3, true)],
            "warn protocol",
            "a newer one",
        ),
        (
            &[(10, 1, true), (20, 2, true), (30, 3, false)],
            "fail protocol",
            "a newer one that failed",
        ),
        (
            &[(10, 1, true), (15, 3, true), (20, 2, true)],
            "fail protocol",
            "one in between that is unknown",
        ),
    ] {
        let check = MigrationCheck::new(
            migrations(&program),
            move || async move { Ok::<_, Failure>(applied(rows)) },
        );
        assert_eq!(told(&check).await, expected, "{why}");
    }
    let newer = || async { Ok::<_, Failure>(applied(&[(1, 1, true)])) };
    assert_eq!(told(&MigrationCheck::new([], newer)).await, "warn protocol");
    assert_eq!(
        told(&MigrationCheck::new([], newer).refuse_newer()).await,
        "fail protocol"
    );
}

proptest! {
    /// Every version is at most once among the differences, and none is there just when both sides are the same.
    #[test]
    fn differences_are_complete_and_sorted(
        program in proptest::collection::btree_map(0_i64..12, 0_u8..2, 0..8),
        database in proptest::collection::btree_map(0_i64..12, (0_u8..2, proptest::bool::weighted(0.9)), 0..8),
    ) {
        let embedded: Vec<(i64, u8)> = program.iter().map(|(version, checksum)| (*version, *checksum)).collect();
        let rows: Vec<(i64, u8, bool)> = database.iter().map(|(version, row)| (*version, row.0, row.1)).collect();
        let found = compare(&migrations(&embedded), &applied(&rows));
        let versions: Vec<i64> = found.iter().map(|(version, _)| *version).collect();
        prop_assert!(versions.is_sorted_by(|one, next| one < next), "{found:?}");
        for version in 0..12 {
            let difference = found.iter().find(|(of, _)| *of == version).map(|(_, difference)| *difference);
            let newest = program.keys().max().copied().unwrap_or(i64::MIN);
            let expected = match (program.get(&version), database.get(&version)) {
                (_, Some((_, false))) => Some(Difference::Failed(version)),
                (None, None) => None,
                (Some(_), None) => Some(Difference::Missing(version)),
                (Some(checksum), Some((applied, true))) => (checksum != applied).then_some(Difference::Changed(version)),
                (None, Some(_)) if version > newest => Some(Difference::Newer(version)),
                (None, Some(_)) => Some(Difference::Unknown(version)),
            };
            prop_assert_eq!(difference, expected);
        }
    }

    /// Whatever a URL's user and password are, the detail of a failure holds neither.
    #[test]
    fn no_url_gives_its_password_away(password in "[!-~&&[^ \"')>]]{4,12}", rest in "[a-z/?=:]{0,12}") {
        let failure = Failure::new(Reason::Error, format!("cannot reach postgres://shop:{password}@db.internal/{rest} now"));
        prop_assert_eq!(failure.detail, format!("cannot reach postgres://***@db.internal/{rest} now"));
    }
}

#[test]
fn details_without_a_secret_stay_as_they_are() {
    for detail in [
        "plain",
        "mail to ops@shop.example",
        "GET http://db.internal/x failed",
        "a://b c://d",
        "",
    ] {
        assert_eq!(Failure::new(Reason::Error, detail).detail, detail);
    }
    let two = Failure::new(Reason::Error, "redis://:pw@a:1/0, then amqp://u:p@w@b/%2f");
    assert_eq!(two.detail, "redis://***@a:1/0, then amqp://***@b/%2f");
    let chained = Failure::from(std::io::Error::other("no route to nats://u:pw@n"));
    assert_eq!(chained.detail, "no route to nats://***@n");
}

#[test]
fn io_errors_are_told_apart() {
    use std::io::{Error, ErrorKind};
    let of = |error: Error| Failure::from(error).reason;
    for (kind, reason) in [
        (ErrorKind::TimedOut, Reason::Timeout),
        (ErrorKind::ConnectionRefused, Reason::Refused),
        (ErrorKind::UnexpectedEof, Reason::Refused),
        (ErrorKind::HostUnreachable, Reason::Refused),
        (ErrorKind::PermissionDenied, Reason::Auth),
        (ErrorKind::StorageFull, Reason::Saturated),
        (ErrorKind::InvalidData, Reason::Protocol),
        (ErrorKind::AlreadyExists, Reason::Error),
    ] {
        assert_eq!(of(kind.into()), reason, "{kind}");
    }
    let tls = |text: &str| of(Error::new(ErrorKind::InvalidData, text.to_owned()));
    assert_eq!(tls("invalid peer certificate: UnknownIssuer"), Reason::Tls);
    assert_eq!(tls("received fatal alert: HandshakeFailure"), Reason::Tls);
    assert_eq!(
        of(Error::other(
            "failed to lookup address information: Name or service not known"
        )),
        Reason::Dns
    );
}

#[test]
fn a_cause_is_shared_by_its_clones() {
    let cause = Cause::new();
    let of_client = cause.clone();
    assert_eq!(cause.failure(), None);
    of_client.report(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    assert_eq!(cause.failure().map(|failure| failure.reason), Some(Reason::Refused));
    of_client.clear();
    assert_eq!(cause.failure(), None);
}
