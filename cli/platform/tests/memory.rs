//! The memory twin keeps the contract, by the paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use opsctl_platform::VersionSpec;
use opsctl_platform::contract::{Subject, check};
use opsctl_platform::memory::MemoryPlatform;

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    check(|| async {
        Subject {
            platform: Arc::new(MemoryPlatform::new().with_service("orders", "v1", 2)),
            service: "orders".to_owned(),
            second: VersionSpec {
                version: "v2".to_owned(),
                command: vec!["/bin/orders".to_owned()],
                image: None,
                env: BTreeMap::new(),
                replicas: 1,
            },
            keeps_names: true,
            plays_faults: true,
        }
    })
    .await;
}
