//! The real binary, spoken to as its clients do: accounts, tokens, keys, bad input, two instances, drains.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::os::unix::fs::PermissionsExt as _;

use chassis::trial::{FORGED, Instance, Reply, Trial, until_async};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use support::client::{EXE, credentials, login};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

mod support {
    pub(crate) mod client;
}

async fn register(service: &Instance, email: &str, password: &str) -> Reply {
    service.post("/register", &credentials(email, password)).await.unwrap()
}

/// The claims of a token, if a key that `service` publishes signed it.
async fn verify(service: &Instance, token: &str) -> Option<Value> {
    let keys: JwkSet = serde_json::from_value(service.get("/.well-known/jwks.json").await.unwrap().json()).unwrap();
    let id = decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&id)?).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["identity"]);
    Some(decode::<Value>(token, &key, &validation).unwrap().claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_gets_tokens_that_any_instance_vouches_for() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, &folder.path().join("data"))
        .env("SERVICE_VERSION", "v7")
        .env("TOKEN_LIFETIME", "10m");
    let (one, two) = tokio::join!(trial.start(), trial.start());

    let registered = register(&one, " Ada@Example.org ", "correct horse").await;
    assert_eq!(
        (registered.status, registered.header("x-service-version")),
        (201, Some("v7"))
    );
    assert_eq!(registered.json()["email"], "ada@example.org");
    assert_eq!(register(&two, "ada@example.ORG", "another horse").await.status, 409);

    let answer = login(&two, "ADA@example.org", "correct horse").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let answer = answer.json();
    assert_eq!(
        (&answer["token_type"], &answer["expires_in"]),
        (&json!("Bearer"), &json!(600))
    );
    let token = answer["access_token"].as_str().unwrap();
    let (by_one, by_two) = (verify(&one, token).await.unwrap(), verify(&two, token).await.unwrap());
    assert_eq!(by_one, by_two);
    assert_eq!(by_one["sub"], registered.json()["user_id"]);
    assert_eq!(by_one["exp"].as_i64().unwrap() - by_one["iat"].as_i64().unwrap(), 600);

    for (path, mode) in [
        ("", 0o700),
        ("keys", 0o700),
        ("keys/00000001.pem", 0o600),
        ("identity.db", 0o600),
    ] {
        let found = std::fs::metadata(folder.path().join("data").join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    for line in one.lines().iter().chain(&two.lines()) {
        assert!(
            !line.contains("horse") && !line.contains(token),
            "a secret is in the log: {line}"
        );
    }
    let created = "identity_registrations_total{outcome=\"created\"}";
    assert!((one.metric(created).await - 1.0).abs() < 1e-9);
    assert!(one.metric("bulkhead_limit{name=\"passwords\"}").await > 0.5);
    let mut health = HealthClient::new(one.channel());
    assert_eq!(
        health
            .check(HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner()
            .status,
        1
    );
    one.check_probes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_one_clear_answer() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    register(&service, "ada@example.org", "correct horse").await;
    let long = "x".repeat(129);
    let forged = format!("{FORGED}@example.org");
    for (body, status, code) in [
        (String::new(), 400, "bad_json"),
        ("{".into(), 400, "bad_json"),
        ("[]".into(), 400, "bad_json"),
        ("{\"email\":1,\"password\":2}".into(), 400, "bad_json"),
        ("[".repeat(10_000), 400, "bad_json"),
        (
            json!({"email": "b@example.org", "password": "long enough", "admin": true}).to_string(),
            400,
            "bad_json",
        ),
        (credentials("no address", "long enough"), 400, "invalid_email"),
        (
            credentials("x'); DROP TABLE users; --@example.org", "long enough"),
            400,
            "invalid_email",
        ),
        (credentials(&forged, "long enough"), 400, "invalid_email"),
        (credentials("b@example.org", "short"), 400, "invalid_password"),
        (credentials("b@example.org", &long), 400, "invalid_password"),
        (credentials("b@example.org", &"x".repeat(100_000)), 413, "too_large"),
        (credentials("ada@example.org", "long enough"), 409, "exists"),
    ] {
        let reply = service.post("/register", &body).await.unwrap();
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{body:.100}"
        );
        assert!(!reply.body.contains("long enough"), "an answer repeats a password");
    }
    assert_eq!(service.get("/register").await.unwrap().status, 405);
    assert_eq!(service.get("/nowhere").await.unwrap().status, 404);
    service.check_log();
    assert_eq!(
        login(&service, "ada@example.org", "correct horse").await.status,
        200,
        "it still works"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_login_does_not_say_why_and_many_are_slowed_down() {
    let folder = tempfile::tempdir().unwrap();
    let service = Trial::new(EXE, folder.path()).start().await;
    register(&service, "ada@example.org", "correct horse").await;
    register(&service, "bob@example.org", "battery staple").await;
    let answers: Vec<_> = [
        login(&service, "ada@example.org", "wrong").await,
        login(&service, "nobody@example.org", "wrong").await,
        login(&service, "no address", "wrong").await,
        login(&service, "' OR 1=1 --", "' OR 1=1 --").await,
    ]
    .into_iter()
    .map(|reply| (reply.status, reply.body))
    .collect();
    assert!(
        answers.iter().all(|answer| *answer == answers[0] && answer.0 == 401),
        "{answers:?}"
    );
    let mut last = login(&service, "ada@example.org", "wrong").await;
    for _ in 0..20 {
        last = login(&service, "ada@example.org", "wrong").await;
    }
    assert_eq!(
        (last.status, last.json()["error"]["code"].as_str()),
        (429, Some("too_many_attempts"))
    );
    let wait: u64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        login(&service, "ada@example.org", "correct horse").await.status,
        429,
        "also with the right one"
    );
    assert_eq!(
        login(&service, "bob@example.org", "battery staple").await.status,
        200,
        "others are not concerned"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_registrations_of_one_address_one_wins_over_two_instances() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let (one, two) = tokio::join!(trial.start(), trial.start());
    let replies = futures_all((0..12).map(|n| {
        let service = if n % 2 == 0 { &one } else { &two };
        async move {
            register(service, "ada@example.org", &format!("password {n}"))
                .await
                .status
        }
    }))
    .await;
    assert_eq!(
        replies.iter().filter(|status| **status == 201).count(),
        1,
        "{replies:?}"
    );
    assert!(
        replies.iter().all(|status| [201, 409, 503].contains(status)),
        "{replies:?}"
    );
}

/// Runs all at once.
async fn futures_all<T, F: Future<Output = T>>(futures: impl Iterator<Item = F>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, done) in &mut futures {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_added_by_a_file_and_all_instances_publish_it() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    let (one, two) = tokio::join!(trial.start(), trial.start());
    register(&one, "ada@example.org", "correct horse").await;
    let token = |reply: Reply| reply.json()["access_token"].as_str().unwrap().to_owned();
    let old = token(login(&one, "ada@example.org", "correct horse").await);

    let (code, stdout, stderr) = trial.clone().arg("--new-key").run_to_end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.trim(), folder.path().join("keys/00000002.pem").to_str().unwrap());
    for service in [&one, &two] {
        until_async("the new key is published", || async {
            let keys = service.get("/.well-known/jwks.json").await.ok()?.json();
            (keys["keys"].as_array()?.len() == 2).then_some(())
        })
        .await;
    }
    // Verifiers may not know the new key yet, so the old one still signs.
    let fresh = token(login(&two, "ada@example.org", "correct horse").await);
    assert_eq!(decode_header(&fresh).unwrap().kid, decode_header(&old).unwrap().kid);
    assert!(verify(&two, &old).await.is_some());

    // As if a minute had passed since the key was added.
    let file = std::fs::File::open(folder.path().join("keys/00000002.pem")).unwrap();
    let added = file.metadata().unwrap().modified().unwrap();
    file.set_modified(added - std::time::Duration::from_mins(2)).unwrap();
    let new = until_async("the new key signs", || async {
        let token = token(login(&one, "ada@example.org", "correct horse").await);
        (decode_header(&token).unwrap().kid != decode_header(&old).unwrap().kid).then_some(token)
    })
    .await;
    assert!(verify(&one, &new).await.is_some() && verify(&two, &new).await.is_some());

    std::fs::remove_file(folder.path().join("keys/00000001.pem")).unwrap();
    until_async("the old key is withdrawn", || async {
        verify(&two, &old).await.is_none().then_some(())
    })
    .await;
    assert!(verify(&two, &new).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_refused_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let trial = Trial::new(EXE, folder.path());
    trial.clone().arg("--new-key").run_to_end().await;
    let key = folder.path().join("keys/00000001.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, stderr) = trial.run_to_end().await;
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("read by others") && stderr.contains("00000001.pem"),
        "{stderr}"
    );
    std::fs::write(&key, "garbage").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (code, _, stderr) = trial.run_to_end().await;
    assert!(code == Some(2) && stderr.contains("PKCS #8"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_under_way_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Trial::new(EXE, folder.path())
        .env("SERVICE_FAULT", "latency=700ms")
        .env("DRAIN_DELAY", "300ms")
        .start()
        .await;
    let before = service.metric("process_open_fds").await;
    let (status, ()) = tokio::join!(register(&service, "ada@example.org", "correct horse"), async {
        until_async("the request is being read", || async {
            (service.metric("process_open_fds").await > before).then_some(())
        })
        .await;
        service.terminate();
    });
    assert_eq!(status.status, 201);
    assert_eq!(status.header("connection"), Some("close"));
    assert_eq!(service.until_ended().await.code(), Some(0));
    let service = Trial::new(EXE, folder.path()).start().await;
    assert_eq!(login(&service, "ada@example.org", "correct horse").await.status, 200);
}
