//! The policies that are printed for writers and pruners are enough for their work, and the writer's for no more.

use std::sync::Arc;

use aws_sdk_sts::config::{BehaviorVersion, Credentials as Signed, Region};
use backups::pitr::Datastore;
use backups::pitr::postgres::archive::{Archive, Put};
use backups::pitr::postgres::{Lsn, SystemId, Timeline};
use backups::store::s3::{Credentials, Keys, S3Options, pruner_policy, writer_policy};
use backups::store::{S3Store, list_all};
use backups::{Repository, Store, StoreError};
use bytes::Bytes;
use peers::servers::MinIo;
use replication::{Segment, SegmentSize};

use crate::service::{BUCKET, PREFIX, Service, key};
use crate::world::{PASSWORD, check, files, init, odd_tree, picture, restore, save};

/// A store for a session that a policy restricts.
async fn session(service: &Service, policy: &serde_json::Value) -> S3Store {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(service.server.url("s3"))
        .credentials_provider(Signed::new(MinIo::ACCESS_KEY, MinIo::SECRET_KEY, None, None, "test"));
    let assumed = aws_sdk_sts::Client::from_conf(config.build())
        .assume_role()
        .role_arn("arn:aws:iam::000000000000:role/any")
        .role_session_name("test")
        .policy(policy.to_string());
    let assumed = assumed.send().await.expect("a session");
    let lent = assumed.credentials().expect("keys");
    let keys = Keys {
        access_key: lent.access_key_id().to_owned(),
        secret_key: lent.secret_access_key().to_owned().into(),
        session_token: Some(lent.session_token().to_owned().into()),
    };
    S3Store::new(S3Options {
        credentials: Credentials::fixed(keys),
        ..service.options()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_backs_up_and_cannot_delete_and_a_pruner_can() {
    let Some(service) = Service::start("a_writer_backs_up_and_cannot_delete_and_a_pruner_can").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    let writer: Arc<dyn Store> = Arc::new(session(&service, &writer_policy(BUCKET, PREFIX)).await);
    let repository = init(&writer).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    save(
        &Repository::open(Arc::clone(&writer), PASSWORD).await.unwrap(),
        &files(&source),
    )
    .await
    .unwrap();
    assert_eq!(
        list_all(&*writer, "locks/").await.unwrap(),
        [],
        "it gave its locks back"
    );
    let target = folder.path().join("target");
    assert!(!restore(&repository, &saved, &target).await.is_partial());
    assert_eq!(picture(&target.join("source")), picture(&source));
    assert!(check(&repository).await.is_sound());

    // The log of a PostgreSQL, which whoever receives it only adds to.
    let archive = Archive::new(&repository, Datastore::new("local.pg").unwrap());
    let (system, size) = (SystemId(7), SegmentSize::DEFAULT);
    let beginning = Bytes::from_static(b"the beginning of a segment");
    let segment = Segment::containing(Timeline::FIRST, Lsn(0xB300_0000), size);
    let put = archive.put_partial(system, segment, size, beginning.clone());
    assert_eq!(put.await.unwrap(), Put::Stored);
    let put = archive.put_partial(system, segment, size, beginning);
    assert_eq!(put.await.unwrap(), Put::Present);
    assert_eq!(archive.list().await.unwrap().systems.len(), 1);

    for kind in ["data/", "snapshots/", "index/", "keys/", "wal/", "config"] {
        let objects = list_all(&*writer, kind).await.unwrap();
        let victim = &objects.first().expect("each kind is there").key;
        let outcome = writer.delete(victim).await;
        assert!(
            matches!(outcome, Err(StoreError::Denied { .. })),
            "{victim}: {outcome:?}"
        );
        writer.get(victim).await.expect("it is still there");
        let replaced = writer.put(victim, "other".into()).await;
        assert!(
            matches!(replaced, Err(StoreError::Exists { .. })),
            "{victim}: {replaced:?}"
        );
    }
    let elsewhere = S3Store::new(S3Options {
        prefix: "others".to_owned(),
        ..service.options()
    });
    elsewhere.put(&key("config"), "theirs".into()).await.unwrap();
    let admin = service.admin();
    assert!(
        admin
            .head_object()
            .bucket(BUCKET)
            .key("others/config")
            .send()
            .await
            .is_ok()
    );

    let pruner = session(&service, &pruner_policy(BUCKET, PREFIX)).await;
    for kind in ["data/", "snapshots/", "index/", "wal/"] {
        let objects = list_all(&pruner, kind).await.unwrap();
        let victim = &objects.first().expect("each kind is there").key;
        pruner.delete(victim).await.unwrap();
        assert!(pruner.get(victim).await.unwrap_err().is_not_found());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_role_reaches_beyond_the_prefix() {
    let Some(service) = Service::start("neither_role_reaches_beyond_the_prefix").await else {
        return;
    };
    let theirs = |store: &S3Options| S3Options {
        prefix: "others".to_owned(),
        ..store.clone()
    };
    let root = S3Store::new(theirs(&service.options()));
    root.put(&key("config"), "theirs".into()).await.unwrap();
    for policy in [writer_policy(BUCKET, PREFIX), pruner_policy(BUCKET, PREFIX)] {
        // The same keys, another prefix: the policy names one.
        let other = policy.to_string().replace(PREFIX, "mine");
        let policy = serde_json::from_str(&other).unwrap();
        let stranger = session(&service, &policy).await;
        let name = key("config");
        for outcome in [
            stranger.get(&name).await.err(),
            stranger.put(&key("data/ab/abcd"), "x".into()).await.err(),
            stranger.delete(&name).await.err(),
        ] {
            assert!(matches!(outcome, Some(StoreError::Denied { .. })), "{outcome:?}");
        }
    }
}
