//! Buckets that keep versions, and those that lock objects.

use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
    ObjectLockRule, VersioningConfiguration,
};
use backups::Store;
use backups::store::list_all;

use crate::service::{BUCKET, Service, key, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_version_is_hidden_and_kept() {
    let Some(service) = Service::start("a_deleted_version_is_hidden_and_kept").await else {
        return;
    };
    let admin = service.admin();
    let on = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    admin
        .put_bucket_versioning()
        .bucket(BUCKET)
        .versioning_configuration(on)
        .send()
        .await
        .unwrap();
    hides_what_is_deleted(&service).await;
    // With versions the contract holds as without.
    let versioned = backups::store::s3::S3Options {
        prefix: "contract".to_owned(),
        ..service.options()
    };
    backups::store::contract::check(std::sync::Arc::new(backups::store::S3Store::new(versioned))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bucket_locks_by_default_is_locked() {
    let Some(service) = Service::without_bucket("what_the_bucket_locks_by_default_is_locked").await else {
        return;
    };
    let admin = service.admin();
    admin
        .create_bucket()
        .bucket(BUCKET)
        .object_lock_enabled_for_bucket(true)
        .send()
        .await
        .unwrap();
    let retention = DefaultRetention::builder()
        .mode(ObjectLockRetentionMode::Compliance)
        .days(1)
        .build();
    let lock = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(retention).build())
        .build();
    admin
        .put_object_lock_configuration()
        .bucket(BUCKET)
        .object_lock_configuration(lock)
        .send()
        .await
        .unwrap();
    let version = hides_what_is_deleted(&service).await;
    let kept = admin
        .get_object_retention()
        .bucket(BUCKET)
        .key(name(&key("data/ab/abcd")));
    let kept = kept.version_id(&version).send().await.unwrap();
    assert!(
        kept.retention()
            .is_some_and(|retention| retention.retain_until_date().is_some())
    );
    let gone = admin
        .delete_object()
        .bucket(BUCKET)
        .key(name(&key("data/ab/abcd")))
        .version_id(version);
    assert!(gone.send().await.is_err(), "a locked version stays");
}

/// The version that stays.
async fn hides_what_is_deleted(service: &Service) -> String {
    let (store, name) = (service.store(), key("data/ab/abcd"));
    store.put(&name, "content".into()).await.unwrap();
    store.delete(&name).await.unwrap();
    assert_eq!(list_all(&store, "").await.unwrap(), []);
    assert!(store.get(&name).await.unwrap_err().is_not_found());
    assert!(store.stat(&name).await.unwrap_err().is_not_found());
    let versions = service
        .admin()
        .list_object_versions()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    let [version] = versions.versions() else {
        panic!("one version stays: {versions:?}");
    };
    store.delete(&name).await.unwrap();
    store
        .put(&name, "again".into())
        .await
        .expect("a deleted name can be used again");
    assert_eq!(store.get(&name).await.unwrap(), "again");
    version.version_id().unwrap().to_owned()
}
