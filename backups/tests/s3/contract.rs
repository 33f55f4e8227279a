//! S3 keeps the contract of every store: plainly, through a network that fails at random, and with each way of writing.

use std::sync::Arc;
use std::time::Duration;

use backups::store::s3::{Checksums, Credentials, Multipart, Patience, S3Options};
use backups::store::{S3Store, contract};
use backups::{Store, StoreError};
use peers::Server;
use peers::faults::Fault;
use peers::servers::MinIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::service::{BUCKET, PREFIX, Service, key, refused, root_keys};

async fn check(options: S3Options) {
    contract::check(Arc::new(S3Store::new(options))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract() {
    let Some(service) = Service::start("a_bucket_keeps_the_contract").await else {
        return;
    };
    check(service.options()).await;
    let at_the_root = S3Options {
        bucket: "bare".to_owned(),
        prefix: String::new(),
        ..service.options()
    };
    service.admin().create_bucket().bucket("bare").send().await.unwrap();
    check(at_the_root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_with_checksums_and_in_parts() {
    let Some(service) = Service::start("it_does_with_checksums_and_in_parts").await else {
        return;
    };
    for (prefix, checksums, above) in [
        ("checksums", Checksums::Always, u64::MAX),
        ("parts", Checksums::WhenRequired, 0),
        ("both", Checksums::Always, 0),
    ] {
        let multipart = Multipart {
            above,
            ..Multipart::default()
        };
        check(S3Options {
            prefix: prefix.to_owned(),
            checksums,
            multipart,
            ..service.options()
        })
        .await;
    }
    let seen = service.proxy.seen();
    assert!(seen.iter().any(|request| request.path.contains("uploadId")));
}

/// What a network and a busy service do, to every seventh request.
fn misfortune(random: &mut StdRng, length: u64) -> Option<Fault> {
    if !random.random_ratio(1, 7) {
        return None;
    }
    Some(match random.random_range(0..8) {
        0 => refused(503, "SlowDown"),
        1 => refused(500, "InternalError"),
        2 => refused(400, "RequestTimeout"),
        3 => refused(502, ""),
        4 => Fault::RequestCut(random.random_range(0..=length)),
        5 => Fault::AnswerCut(random.random_range(0..100_000)),
        _ => Fault::AnswerLost,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_through_a_network_that_fails_at_random() {
    let Some(service) = Service::start("it_does_through_a_network_that_fails_at_random").await else {
        return;
    };
    for (prefix, above) in [("whole", u64::MAX), ("parts", 1)] {
        let seed: u64 = rand::random();
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        service.proxy.heal();
        service
            .proxy
            .rule(move |request| misfortune(&mut random, request.length));
        let multipart = Multipart {
            above,
            ..Multipart::default()
        };
        check(S3Options {
            prefix: prefix.to_owned(),
            multipart,
            ..service.options()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_conditional_writes_it_looks_first() {
    let Some(service) = Service::start("without_conditional_writes_it_looks_first").await else {
        return;
    };
    service.proxy.rule(|request| {
        let conditional = request.header("if-none-match").is_some();
        conditional.then(|| refused(501, "NotImplemented"))
    });
    let store = service.store();
    let name = key("data/ab/abcd");
    store.put(&name, "first".into()).await.unwrap();
    let again = store.put(&name, "second".into()).await;
    assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    assert_eq!(store.get(&name).await.unwrap(), "first");
    let asked = |path: &str| {
        let seen = service.proxy.seen();
        let conditional = seen.iter().filter(|request| request.header("if-none-match").is_some());
        conditional.filter(|request| request.path.contains(path)).count()
    };
    assert_eq!(asked("abcd"), 1, "it is learned once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_wants_checksums_gets_them() {
    let Some(service) = Service::start("a_bucket_that_wants_checksums_gets_them").await else {
        return;
    };
    service.proxy.rule(|request| {
        let told = ["x-amz-checksum-crc32", "x-amz-trailer"].map(|name| request.header(name).is_some());
        let lacks = request.method == "PUT" && told == [false, false];
        let said = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        let body = format!("<Error><Code>InvalidRequest</Code><Message>{said}</Message></Error>");
        lacks.then(|| Fault::Instead(peers::faults::Answer::new(400, "application/xml", body)))
    });
    let store = service.store();
    for name in ["data/ab/one", "data/ab/two"] {
        store.put(&key(name), "content".into()).await.unwrap();
    }
    assert_eq!(service.count("PUT"), 3, "it is learned once");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_over_tls_and_trusts_nobody_else() {
    let recipe = MinIo::default().bucket(BUCKET).encrypted();
    let Some(server) = Server::start(recipe, "it_does_over_tls_and_trusts_nobody_else").await else {
        return;
    };
    let options = S3Options {
        endpoint: Some(format!("https://{}", server.address("s3"))),
        path_style: true,
        credentials: Credentials::fixed(root_keys()),
        certificate: Some(std::fs::read(server.folder().join("ca.pem")).unwrap()),
        multipart: Multipart {
            above: 100_000,
            ..Multipart::default()
        },
        ..S3Options::new(BUCKET, PREFIX)
    };
    check(options.clone()).await;
    let stranger = S3Store::new(S3Options {
        certificate: None,
        patience: Patience {
            retries: 1,
            first_wait: Duration::from_millis(1),
            ..Patience::default()
        },
        ..options
    });
    let outcome = stranger.get(&key("config")).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
}
