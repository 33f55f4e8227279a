//! Spans in a file: lines that the protocol's own types read, an exact account also when the disk is full, and one
//! rotation.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/emitter.rs"]
mod emitter;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use emitter::Emitter;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

#[test]
fn emit() {
    emitter::emit();
}

/// The spans of a file by number of lines, each checked.
fn read(path: &Path) -> (u64, Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "whole lines");
    let mut spans = 0;
    let mut ids = Vec::new();
    for line in text.lines() {
        let request: ExportTraceServiceRequest = serde_json::from_str(line).unwrap();
        let [of_resource] = &request.resource_spans[..] else {
            panic!("one resource a line")
        };
        let resource = of_resource.resource.as_ref().unwrap();
        assert!(resource.attributes.iter().any(|pair| pair.key == "service.name"));
        for span in &of_resource.scope_spans[0].spans {
            assert_eq!(
                (span.trace_id.len(), span.span_id.len(), span.name.as_str()),
                (16, 8, "work")
            );
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
            assert_eq!(span.events[0].name, "working");
            ids.push(format!("{:02x?}", span.span_id));
            spans += 1;
        }
    }
    (spans, ids)
}

#[tokio::test]
async fn every_span_is_in_the_file_which_is_private_and_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.jsonl");
    for round in 1..=2 {
        let emitter = Emitter::spans(700)
            .env("TRACES_FILE", path.to_str().unwrap())
            .sink("traces_file");
        let counts = emitter.run_alone().await;
        assert_eq!((counts.delivered, counts.lost()), (700, 0));
        let (spans, mut ids) = read(&path);
        ids.sort();
        ids.dedup();
        assert_eq!((spans, ids.len() as u64), (700 * round, 700 * round));
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // The form that other programs read: hex ids, times as text, numbers for kinds.
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let id = span["traceId"].as_str().unwrap();
    assert!(
        id.len() == 32
            && id
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
        "{id}"
    );
    assert!(span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!((&span["kind"], &span["parentSpanId"]), (&1.into(), &"".into()));
}

#[tokio::test]
async fn a_bound_keeps_the_file_and_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.jsonl");
    let emitter = Emitter::spans(3000)
        .over(Duration::from_secs(1))
        .env("TRACES_FILE", path.to_str().unwrap())
        .env("TRACES_FILE_MAX_BYTES", "400KiB")
        .sink("traces_file");
    let counts = emitter.run_alone().await;
    assert_eq!((counts.delivered, counts.lost()), (3000, 0));
    let old = folder.path().join("spans.jsonl.1");
    assert!(read(&path).0 + read(&old).0 <= 3000);
    for file in [&path, &old] {
        assert!(std::fs::metadata(file).unwrap().len() <= 400 * 1024);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_full_disk_is_counted() {
    // Every write to it fails for want of space.
    let emitter = Emitter::spans(700).env("TRACES_FILE", "/dev/full").sink("traces_file");
    let counts = emitter.run_alone().await;
    assert_eq!((counts.delivered, counts.dropped), (0, 700));
    assert_eq!(counts.dropped_by["write_failed"], 700);
}
