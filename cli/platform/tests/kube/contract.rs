//! The platform on Kubernetes keeps the contract.

use std::sync::Arc;

use opsctl_platform::contract::{Subject, check};

use crate::stage::{Stage, second};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let Some(stage) = Stage::with_routes("it_keeps_the_contract").await else {
        return;
    };
    check(|| async {
        Subject {
            platform: Arc::new(stage.shop().await.platform),
            service: "orders".to_owned(),
            second: second(),
            // A pod that is killed is replaced.
            keeps_names: false,
            plays_faults: false,
        }
    })
    .await;
}
