//! Journals and notifications: what is written while others read, and while the other side does not answer.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::run::{Journal, Notifier, Notify, Outcome, RunRecord, Tail, read_events};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn now() -> Timestamp {
    "2026-03-14T09:26:53Z".parse().unwrap()
}

#[test]
fn a_line_torn_by_a_kill_is_skipped_and_does_not_tear_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let journal = Journal::open(&path, "r").unwrap();
    journal.enter("one").unwrap();
    journal.append(now(), "first", json!({ "n": 1 })).unwrap();
    drop(journal);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"schema\":\"opsctl.eve").unwrap();
    let journal = Journal::open(&path, "r").unwrap();
    journal.append(now(), "second", Value::Null).unwrap();
    let events = read_events(&path).unwrap();
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.seq, event.kind.as_str(), event.phase.as_str()))
        .collect();
    assert_eq!(seen, [(1, "first", "one"), (2, "second", "")]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let line = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let expected = r#"{"schema":"opsctl.event/v1","ts":"2026-03-14T09:26:53Z","run":"r","seq":1,"phase":"one","type":"first","data":{"n":1}}"#;
    assert_eq!(line, expected);
}

#[test]
fn a_tail_sees_each_event_once_and_only_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let mut tail = Tail::new(&path);
    assert_eq!(tail.poll().unwrap(), []);
    let journal = Journal::open(&path, "r").unwrap();
    for kind in ["a", "b"] {
        journal.append(now(), kind, Value::Null).unwrap();
    }
    assert_eq!(tail.poll().unwrap().len(), 2);
    assert_eq!(tail.poll().unwrap(), []);
    let line = serde_json::to_string(&journal.append(now(), "c", Value::Null).unwrap()).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&line.as_bytes()[..10]).unwrap();
    assert_eq!(tail.poll().unwrap().len(), 1);
    file.write_all(&line.as_bytes()[10..]).unwrap();
    file.write_all(b"\n").unwrap();
    assert_eq!(tail.poll().unwrap().len(), 1);
}

fn closed() -> RunRecord {
    let mut record = RunRecord::new("r", "canary", "service/orders", Value::Null, now());
    record.outcome = Some(Outcome::UndoIncomplete);
    record
}

fn notifier(url: &str) -> Notifier {
    let notify = Notify {
        webhook: url.to_owned(),
    };
    Notifier::new(&notify).unwrap().with_limit(Duration::from_millis(500))
}

/// Answers one request with `head`; gives back what was asked.
async fn server(head: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        stream.write_all(head.as_bytes()).await.unwrap();
        text
    });
    (url, task)
}

#[tokio::test]
async fn a_webhook_is_told_in_one_document() {
    let (url, asked) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let journal = Journal::memory("r");
    let record = closed();
    notifier(&url)
        .tell(&record, Notifier::ending(&record), &journal, now())
        .await;
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /hook HTTP/1.1"), "{asked}");
    let document: Value = serde_json::from_str(asked.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(document["schema"], "opsctl.notification/v1");
    assert_eq!(
        (&document["event"], &document["run"]),
        (&json!("undo_incomplete"), &json!("r"))
    );
    assert_eq!(journal.events().unwrap()[0].kind, "notified");
}

#[tokio::test]
async fn a_webhook_that_fails_is_an_event_and_takes_bounded_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (redirecting, _asked) = server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n").await;
    let closed_port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (url, reason) in [
        (
            format!("http://{}/", silent.local_addr().unwrap()),
            "did not answer within 0.5 s",
        ),
        (redirecting, "302 Found"),
        (format!("http://{closed_port}/"), "cannot be reached"),
    ] {
        let journal = Journal::memory("r");
        notifier(&url).tell(&closed(), "failed", &journal, now()).await;
        let event = journal.events().unwrap().remove(0);
        assert_eq!(event.kind, "notify_failed");
        assert!(event.data["error"].as_str().unwrap().contains(reason), "{event:?}");
    }
    for url in ["ftp://x/", "nonsense", "http:///path"] {
        let notify = Notify {
            webhook: url.to_owned(),
        };
        assert!(Notifier::new(&notify).is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_webhook_over_https_is_asked_in_tls_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/T0/secret", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0; 3];
        stream.read_exact(&mut first).await.unwrap();
        first
    });
    let journal = Journal::memory("r");
    notifier(&url).tell(&closed(), "failed", &journal, now()).await;
    // A handshake record of TLS 1.x (RFC 8446, 5.1); the document went nowhere.
    assert_eq!(asked.await.unwrap(), [0x16, 0x03, 0x01]);
    let event = journal.events().unwrap().remove(0);
    assert_eq!(event.kind, "notify_failed");
    assert!(!event.data["error"].as_str().unwrap().contains("secret"), "{event:?}");
}
