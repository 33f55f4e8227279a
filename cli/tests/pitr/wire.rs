//! A wire between a client and a server that can be cut, and that can hang: bytes only, whatever they mean.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    /// Connections end, and no new one is made.
    Cut,
    /// Connections stay, and nothing comes through.
    Hangs,
}

/// A wire until it is dropped.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    accepting: AbortHandle,
}

impl Wire {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let state = Arc::new(watch::Sender::new(State::Whole));
        let told = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *told.borrow() == State::Cut {
                    continue;
                }
                let state = told.subscribe();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let asked = pass(from_client, to_server, state.clone());
                    let answered = pass(from_server, to_client, state.clone());
                    tokio::select! {
                        () = asked => {}
                        () = answered => {}
                        () = is(state, State::Cut) => {}
                    }
                });
            }
        });
        Self {
            address,
            state,
            accepting: accepting.abort_handle(),
        }
    }

    pub fn is_now(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.send_replace(State::Cut);
    }
}

async fn is(mut state: watch::Receiver<State>, wanted: State) {
    let _ = state.wait_for(|state| *state == wanted).await;
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        is(state.clone(), State::Whole).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
