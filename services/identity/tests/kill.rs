//! `kill -9` of the real binary while people register: an account that was answered is never lost.

use std::collections::HashSet;

use chassis::trial::{Trial, kills, request};
use serde_json::json;

const EXE: &str = env!("CARGO_BIN_EXE_identity");

fn credentials(email: &str) -> String {
    json!({"email": email, "password": "correct horse"}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_no_account() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let mut registered = HashSet::new();
    for round in 0..kills(3) {
        let mut service = trial.start().await;
        let address = service.http;
        let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for client in 0..4 {
            let sender = sender.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let email = format!("u{round}.{client}.{n}@example.org");
                    let body = credentials(&email);
                    let length = body.len();
                    let text = format!(
                        "POST /register HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n\
                         content-length: {length}\r\n\r\n{body}"
                    );
                    match request(address, text.as_bytes()).await {
                        Ok(reply) if reply.status == 201 => sender.send(email).unwrap(),
                        Ok(reply) => panic!("{reply:?}"),
                        Err(_) => return,
                    }
                }
            });
        }
        drop(sender);
        registered.insert(answers.recv().await.unwrap());
        service.kill();
        while let Some(email) = answers.recv().await {
            registered.insert(email);
        }
    }
    let service = trial.start().await;
    for email in &registered {
        assert_eq!(
            service.post("/login", &credentials(email)).await.unwrap().status,
            200,
            "{email} is lost"
        );
    }
}
