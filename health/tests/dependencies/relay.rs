//! A way to a server that takes its time: what goes in on one side comes out on the other a moment later.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Gone with its connections when dropped.
pub struct Relay {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port and passes on to `target`, each way `delay` later.
    pub async fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(target).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                ways.spawn(pass(from_client, to_server, delay));
                ways.spawn(pass(from_server, to_client, delay));
            }
        });
        Self { address, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(delay).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
