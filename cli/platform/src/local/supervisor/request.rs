//! The supervisor's socket: one JSON line asks, one answers. Who may open the socket (0600) may ask.

use std::path::Path;
use std::time::Duration;

use opsctl_proxy_control::socket;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::process::Process;
use crate::{PlatformError, Result};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(in crate::local) enum Request {
    /// Is anybody there?
    Ping,
    /// Read `desired.json` now. Answered when what it says was begun.
    Reconcile,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::local) struct Answer {
    pub(in crate::local) supervisor: Process,
    /// The revision of `desired.json` that was acted upon.
    pub(in crate::local) revision: u64,
}

/// A request on its way to the main loop.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The longest request line, in bytes.
const MAX_LINE: u64 = 4096;

/// Asks the supervisor.
///
/// Errors: [`PlatformError::Unreachable`], [`PlatformError::TimedOut`].
pub(in crate::local) async fn ask(path: &Path, request: Request, limit: Duration) -> Result<Answer> {
    let unreachable = |source: std::io::Error| PlatformError::Unreachable {
        what: "the supervisor".to_owned(),
        source: source.into(),
    };
    let exchange = async {
        let mut stream = socket::connect(path).await.map_err(unreachable)?;
        let mut line = serde_json::to_vec(&request).map_err(|error| unreachable(error.into()))?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(unreachable)?;
        let mut answer = String::new();
        BufReader::new(stream)
            .take(MAX_LINE)
            .read_line(&mut answer)
            .await
            .map_err(unreachable)?;
        serde_json::from_str(&answer).map_err(|error| unreachable(error.into()))
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(PlatformError::TimedOut {
            what: "the supervisor's answer".to_owned(),
            limit,
        }),
    }
}

/// Answers requests until the receiver is gone.
pub(super) async fn serve(listener: tokio::net::UnixListener, requests: mpsc::Sender<Asked>) {
    while let Ok((stream, _)) = listener.accept().await {
        let requests = requests.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.into_split();
            let mut line = String::new();
            let whole = BufReader::new(read).take(MAX_LINE).read_line(&mut line).await;
            if whole.is_err() {
                return;
            }
            let Ok(request) = serde_json::from_str(&line) else {
                return;
            };
            let (answer, answered) = oneshot::channel();
            if requests.send(Asked { request, answer }).await.is_err() {
                return;
            }
            if let Ok(answer) = answered.await
                && let Ok(mut text) = serde_json::to_vec(&answer)
            {
                text.push(b'\n');
                let _ = write.write_all(&text).await;
            }
        });
    }
}
