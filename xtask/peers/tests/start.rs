//! A start that does not go well: a port that a stranger took, a configuration that the server refuses.

use std::{io, net::TcpListener, sync::Mutex};

use peers::{Place, Port, Program, Ready, Recipe, Server, StartError, servers};

/// A Redis whose first port is taken before it is started.
#[derive(Default)]
struct Robbed {
    redis: servers::Redis,
    stranger: Mutex<Option<TcpListener>>,
}

impl Recipe for Robbed {
    fn peer(&self) -> &'static str {
        self.redis.peer()
    }

    fn ports(&self) -> &'static [Port] {
        self.redis.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let mut stranger = self.stranger.lock().expect("nobody panics with it");
        if stranger.is_none() {
            *stranger = Some(TcpListener::bind(place.address("redis"))?);
        }
        self.redis.prepare(place)
    }

    fn ready(&self) -> Ready {
        self.redis.ready()
    }
}

#[tokio::test]
async fn a_port_that_a_stranger_took_is_no_failure() {
    let Some(server) = Server::start(Robbed::default(), "a_port_that_a_stranger_took").await else {
        return;
    };
    assert!(server.is_running());
}

#[tokio::test]
async fn a_server_that_ends_at_once_says_why() {
    const TEST: &str = "a_server_that_ends_at_once_says_why";
    if peers::peer("loki", TEST).is_none() {
        return;
    }
    let error = Server::launch(servers::Loki::default().limit("no_such_limit", "1"))
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Ended { peer: "loki", .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_limit"), "{error}");
}

#[tokio::test]
async fn an_unknown_kind_is_refused_with_those_that_there_are() {
    let error = Server::launch_named("mongod").await.unwrap_err();
    assert!(error.to_string().contains("ferretdb"), "{error}");
}
