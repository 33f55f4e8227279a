//! A dependency that a test switches off, and waiting for a state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use health::{Health, State};

pub(crate) type Asked = Result<(), std::io::Error>;

#[derive(Clone, Default)]
pub(crate) struct Dependency {
    down: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Dependency {
    pub(crate) fn check(&self) -> impl Fn() -> std::future::Ready<Asked> + Send + Sync + 'static {
        let this = self.clone();
        move || {
            this.asked.fetch_add(1, Ordering::SeqCst);
            let down = this.down.load(Ordering::SeqCst);
            std::future::ready(if down {
                Err(std::io::ErrorKind::ConnectionRefused.into())
            } else {
                Ok(())
            })
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Waits until the state is the wanted one, at most ten minutes of the test's clock.
pub(crate) async fn until(health: &Health, state: State) {
    tokio::time::timeout(Duration::from_secs(600), health.wait_until(|now| now == state))
        .await
        .unwrap_or_else(|_| panic!("not {state:?} but {:?}", health.snapshot()));
}
