//! The clock check against an NTP server of the test, which speaks RFC 5905's packets, and against HTTP dates.

use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use health::{ClockCheck, Outcome};
use jiff::{SignedDuration, Timestamp};
use tokio::net::{TcpListener, UdpSocket};

use crate::{ask, told};

/// Seconds from 1900 to 1970.
const EPOCH: u64 = 2_208_988_800;

/// What the server says beside its time.
#[derive(Clone, Copy)]
struct Answer {
    ahead: SignedDuration,
    leap: u8,
    mode: u8,
    stratum: u8,
    code: [u8; 4],
    root_dispersion: u32,
    echo: bool,
}

impl Answer {
    /// A server of stratum 2 whose clock is `ahead` of ours.
    fn ahead(ahead: SignedDuration) -> Self {
        Self {
            ahead,
            leap: 0,
            mode: 4,
            stratum: 2,
            code: *b"\x7f\0\0\x01",
            root_dispersion: 66,
            echo: true,
        }
    }

    fn right() -> Self {
        Self::ahead(SignedDuration::ZERO)
    }
}

fn bits(time: Timestamp) -> [u8; 8] {
    let seconds = EPOCH.wrapping_add_signed(time.as_second()) as u32;
    let fraction = (u64::from(time.subsec_nanosecond().unsigned_abs()) << 32) / 1_000_000_000;
    (u64::from(seconds) << 32 | fraction).to_be_bytes()
}

/// Answers every question, after a forged one, for the rest of the test.
async fn ntp_server(answer: Answer) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 128];
        loop {
            let (length, client) = socket.recv_from(&mut question).await.unwrap();
            assert_eq!((length, question[0]), (48, 0b00_100_011), "version 4, client");
            assert_eq!(question[1..40], [0; 39], "a question tells nothing of us");
            let now = Timestamp::now() + answer.ahead;
            let mut reply = [0; 48];
            reply[0] = answer.leap << 6 | 4 << 3 | answer.mode;
            reply[1] = answer.stratum;
            reply[8..12].copy_from_slice(&answer.root_dispersion.to_be_bytes());
            reply[12..16].copy_from_slice(&answer.code);
            reply[32..40].copy_from_slice(&bits(now));
            reply[40..48].copy_from_slice(&bits(now + SignedDuration::from_hours(1)));
            // One who does not see the question cannot know its nonce; nor are a few bytes an answer.
            socket.send_to(&reply, client).await.unwrap();
            socket.send_to(&[0x24], client).await.unwrap();
            if answer.echo {
                reply[24..32].copy_from_slice(&question[40..48]);
                reply[40..48].copy_from_slice(&bits(now));
                socket.send_to(&reply, client).await.unwrap();
            }
        }
    });
    address.to_string()
}

async fn told_of(answer: Answer) -> String {
    told(&ClockCheck::ntp(ntp_server(answer).await)).await
}

#[tokio::test]
async fn a_clock_is_judged_by_how_far_it_surely_is_off() {
    let seconds = SignedDuration::from_secs;
    for (ahead, expected) in [
        (SignedDuration::ZERO, "pass"),
        (SignedDuration::from_millis(400), "warn error"),
        (SignedDuration::from_millis(-400), "warn error"),
        (seconds(5), "fail error"),
        (seconds(-5), "fail error"),
        // Years away, and across the end of NTP's first era in 2036, in both directions.
        (seconds(20 * 366 * 86_400), "fail error"),
        (seconds(-20 * 366 * 86_400), "fail error"),
    ] {
        assert_eq!(told_of(Answer::ahead(ahead)).await, expected, "{ahead}");
    }
    // Half a second, so that what the question itself takes changes no digit.
    let ahead = seconds(5) + SignedDuration::from_millis(500);
    let far = ClockCheck::ntp(ntp_server(Answer::ahead(ahead)).await).fail_above(Duration::from_secs(60));
    match ask(&far).await {
        Outcome::Warn(failure) => assert!(failure.detail.starts_with("our clock is 5."), "{}", failure.detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_measured_offset_is_exact() {
    for ahead in [-100_000_000, -3_600, -7, 7, 3_600, 100_000_000, 600_000_000] {
        let server = ntp_server(Answer::ahead(SignedDuration::from_secs(ahead))).await;
        let exact = |above: u64| {
            let check = ClockCheck::ntp(server.clone());
            check.fail_above(Duration::from_secs(above))
        };
        let apart = ahead.unsigned_abs();
        assert_eq!(told(&exact(apart - 1)).await, "fail error", "{ahead}");
        assert_eq!(told(&exact(apart + 1)).await, "warn error", "{ahead}");
    }
}

#[tokio::test]
async fn answers_that_are_not_worth_believing_are_not_believed() {
    let right = Answer::right();
    let kiss = |code: &[u8; 4]| Answer {
        stratum: 0,
        code: *code,
        ..right
    };
    for (answer, expected, why) in [
        (Answer { leap: 3, ..right }, "fail protocol", "its own clock is not set"),
        (
            Answer { stratum: 16, ..right },
            "fail protocol",
            "its own clock is not set",
        ),
        (Answer { mode: 5, ..right }, "fail protocol", "a broadcast"),
        (
            Answer { mode: 3, ..right },
            "fail protocol",
            "our own question, reflected",
        ),
        (
            Answer {
                root_dispersion: 10 << 16,
                ..right
            },
            "fail protocol",
            "ten seconds from the root of time",
        ),
        (
            Answer { echo: false, ..right },
            "fail timeout",
            "an answer to nobody's question",
        ),
        (kiss(b"RATE"), "fail saturated", "kiss o' death"),
        (kiss(b"DENY"), "fail auth", "kiss o' death"),
        (kiss(b"\x1b[2J"), "fail protocol", "kiss o' death of no known kind"),
    ] {
        assert_eq!(told_of(answer).await, expected, "{why}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = ClockCheck::ntp(socket.local_addr().unwrap().to_string());
    assert_eq!(told(&silent).await, "fail timeout");
    drop(socket);
    assert_eq!(told(&silent).await, "fail refused");
    assert_eq!(told(&ClockCheck::ntp("no port")).await, "fail dns");
}

#[tokio::test]
async fn a_peers_date_shows_a_clock_that_is_wrong() {
    let app = Router::new()
        .route("/", get(|| async { "" }))
        .route("/never", get(|| async { [(header::DATE, "yesterday")] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let check = |path: &str| ClockCheck::http(&format!("{base}{path}")).unwrap();
    assert_eq!(told(&check("/")).await, "pass");
    let behind = || Timestamp::now() - SignedDuration::from_secs(30);
    assert_eq!(told(&check("/").with_clock(behind)).await, "fail error");
    let ahead = || Timestamp::now() + SignedDuration::from_secs(6);
    assert_eq!(told(&check("/").with_clock(ahead)).await, "warn error");
    assert_eq!(told(&check("/never")).await, "fail protocol");
}
