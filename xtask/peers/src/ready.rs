//! How one sees that a server is ready, asked again and again until it is.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{http, server::Place};

/// How long one question may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The sign that a server is ready.
#[derive(Debug, Clone, Copy)]
pub enum Ready {
    /// It answers 200 to `GET path`.
    Http {
        /// The port to ask.
        port: &'static str,
        /// What to ask for.
        path: &'static str,
    },
    /// It answers 200 to `GET path` over TLS, asked with `client.pem` and `client.key` of its folder and trusted by its
    /// `ca.pem`.
    Https {
        /// The port to ask.
        port: &'static str,
        /// What to ask for.
        path: &'static str,
    },
    /// To these bytes it answers others.
    Talk {
        /// The port to ask.
        port: &'static str,
        /// What is said first; may be nothing.
        say: &'static [u8],
        /// How many bytes of the answer may be anything.
        skip: usize,
        /// What follows them.
        hear: &'static [u8],
    },
}

impl Ready {
    /// Whether `place` is ready now.
    pub(crate) async fn holds(&self, place: &Place) -> bool {
        match *self {
            Self::Http { port, path } => http::get(place.address(port), path)
                .await
                .is_ok_and(|answer| answer.status == 200),
            Self::Https { port, path } => {
                let file = |name| place.folder().join(name);
                let Ok(client) = http::Secure::read(&file("ca.pem"), &file("client.pem"), &file("client.key")) else {
                    return false;
                };
                let answer = client.get(place.address(port), path).await;
                answer.is_ok_and(|answer| answer.status == 200)
            }
            Self::Talk { port, say, skip, hear } => {
                let heard = timeout(PATIENCE, talk(place.address(port), say, skip + hear.len())).await;
                heard.is_ok_and(|heard| heard.is_ok_and(|heard| &heard[skip..] == hear))
            }
        }
    }
}

async fn talk(address: SocketAddr, say: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(say).await?;
    let mut heard = vec![0; length];
    stream.read_exact(&mut heard).await?;
    Ok(heard)
}
