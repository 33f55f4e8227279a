//! What holds for the readers of what drills left and of what restored data answers.

use jiff::Timestamp;

use super::judge::{Bound, Number, Value, time_of};
use super::record::{Objectives, Phases, Proof, RpoBasis, SCHEMA, Verdict};
use crate::fuzzing::Target;
use crate::repo::Id;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "proof",
        seeds: proofs,
        property: proof,
    },
    Target {
        name: "answer",
        seeds: || {
            let seeds = [
                "2026-11-22T16:30:11Z",
                "2026-11-22 16:30:11.5",
                "1763829011",
                "-1.5e9",
                "1e18",
            ];
            seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
        },
        property: answer,
    },
];

fn proofs() -> Vec<Vec<u8>> {
    let proof = Proof {
        schema: SCHEMA.to_owned(),
        snapshot: Id::of(b"snapshot"),
        snapshot_time: Timestamp::UNIX_EPOCH,
        datastore: "db".to_owned(),
        kind: "sqlite".to_owned(),
        environment: "local".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        moment: Timestamp::UNIX_EPOCH,
        actor: "actor".to_owned(),
        host: "host".to_owned(),
        run: Some("run".to_owned()),
        phases: Phases::default(),
        rto_seconds: Some(1.5),
        rpo_seconds: Some(0.25),
        rpo_basis: RpoBasis::Snapshot,
        objectives: Objectives::default(),
        checks: Vec::new(),
        files: 1,
        bytes: 2,
        verdict: Verdict::Proved,
        tool_version: "test".to_owned(),
        sqlite_version: None,
        server_version: None,
    };
    vec![serde_json::to_vec(&proof).expect("a record is valid JSON")]
}

fn proof(input: &[u8]) {
    let Ok(proof) = serde_json::from_slice::<Proof>(input) else {
        return;
    };
    let written = serde_json::to_vec(&proof).expect("what was read can be written");
    let read = serde_json::from_slice::<Proof>(&written).expect("and read");
    assert_eq!(
        (read.verdict, read.at, read.snapshot),
        (proof.verdict, proof.at, proof.snapshot)
    );
    if proof.makes_sense() {
        assert!(read.makes_sense());
        // What is calculated with stays a number.
        assert!(proof.phases.total().is_finite());
        let figures = [proof.rto_seconds, proof.rpo_seconds, proof.objectives.rpo_seconds];
        assert!(
            figures
                .iter()
                .flatten()
                .all(|seconds| seconds.is_finite() && *seconds >= 0.0)
        );
    }
}

fn answer(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let mut values = vec![Value::Text(text.clone()), Value::Bytes(input.len())];
    values.extend(text.trim().parse().map(Value::Integer));
    values.extend(text.trim().parse().map(Value::Real));
    if let Some(bytes) = input.first_chunk::<8>() {
        values.push(Value::Integer(i64::from_le_bytes(*bytes)));
        values.push(Value::Real(f64::from_le_bytes(*bytes)));
    }
    for value in values {
        if let Some(time) = time_of(&value) {
            // Written as text it is the same time.
            assert_eq!(time_of(&Value::Text(time.to_string())), Some(time));
        }
        let bounds = [
            Bound::AtLeast(Number::Integer(0)),
            Bound::AtMost(Number::Integer(-1)),
            Bound::EqualsText(text.clone()),
        ];
        let [zero_or_more, less, _] = bounds.map(|bound| bound.holds(&value));
        assert!(!(zero_or_more && less), "{value}");
    }
}
