//! `kill -9` of the real binary while people register: an account that was answered is never lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::HashSet;

use chassis::trial::{Trial, kills, post};
use support::client::{EXE, credentials, login};

mod support {
    pub(crate) mod client;
}

const PASSWORD: &str = "correct horse";

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
                    match post(address, "/register", &credentials(&email, PASSWORD)).await {
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
        assert_eq!(login(&service, email, PASSWORD).await.status, 200, "{email} is lost");
    }
}
