//! The local platform keeps the contract, with real processes and a real proxy.

use std::sync::{Arc, Mutex};

use opsctl_platform::Platform;
use opsctl_platform::contract::{Subject, check};

use crate::stage::{Stage, second, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let stages = Arc::new(Mutex::new(Vec::new()));
    check(|| async {
        let old: Vec<Stage> = std::mem::take(&mut *stages.lock().unwrap());
        for stage in old {
            stage.down().await;
        }
        let stage = Stage::new();
        stage.up_well(&[spec("orders")]).await;
        let platform = Arc::clone(&stage.platform) as Arc<dyn Platform>;
        stages.lock().unwrap().push(stage);
        Subject {
            platform,
            service: "orders".to_owned(),
            second: second(),
            keeps_names: true,
            plays_faults: true,
        }
    })
    .await;
}
