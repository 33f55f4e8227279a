//! MongoDB's client against FerretDB, which speaks its protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use health::{Cause, Failure, MongoCheck, Outcome, Reason};
use mongodb::Client;
use mongodb::options::{ClientOptions, Credential};
use peers::{Place, Port, Program, Ready, Recipe, Server, servers};

use tokio::time::{sleep, timeout};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, ask, holds, reason_of, until};
use crate::relay::Relay;

/// A FerretDB that asks who one is.
struct WithUser;

impl Recipe for WithUser {
    fn peer(&self) -> &'static str {
        servers::FerretDb.peer()
    }

    fn ports(&self) -> &'static [Port] {
        servers::FerretDb.ports()
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let login = [
            "--test-enable-new-auth",
            "--setup-database=admin",
            "--setup-username=service",
        ];
        let programs = servers::FerretDb.prepare(place)?.into_iter();
        let password = format!("--setup-password={PASSWORD}");
        Ok(programs.map(|program| program.args(login).arg(&password)).collect())
    }

    fn ready(&self) -> Ready {
        servers::FerretDb.ready()
    }
}

struct MongoDb;

impl Dependency for MongoDb {
    const PORT: &'static str = "mongodb";

    fn recipe() -> impl Recipe {
        servers::FerretDb
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        let mut options = options(address).await;
        let cause = Cause::new();
        cause.watch_mongodb(&mut options);
        Arc::new(check(options).explained_by(&cause))
    }
}

async fn options(address: SocketAddr) -> ClientOptions {
    ClientOptions::parse(format!("mongodb://{address}/")).await.unwrap()
}

fn check(options: ClientOptions) -> MongoCheck {
    MongoCheck::new(&Client::with_options(options).unwrap().database("orders"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_keeps_the_contract() {
    holds::<MongoDb>("mongodb_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_the_password_says_so() {
    let test = "a_server_that_refuses_the_password_says_so";
    let Some(server) = Server::start(WithUser, test).await else {
        return;
    };
    let mut options = options(server.address("mongodb")).await;
    let login = Credential::builder().username("service".to_owned());
    options.credential = Some(login.password(WRONG.to_owned()).build());
    let outcome = ask(&(Arc::new(check(options)) as AnyCheck)).await;
    let refused = |failure: &Failure| failure.reason == Reason::Auth && failure.detail.contains("AuthenticationFailed");
    assert!(
        matches!(&outcome, Outcome::Fail(failure) if refused(failure)),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_whose_connection_breaks_is_asked_once_more() {
    let test = "a_ping_whose_connection_breaks_is_asked_once_more";
    let Some(server) = Server::start(servers::FerretDb, test).await else {
        return;
    };
    let relay = Relay::start(server.address("mongodb"), Duration::from_millis(20)).await;
    let check: AnyCheck = Arc::new(check(options(relay.address()).await));
    until(&check, test, None).await;
    for round in 0..5 {
        let asked = tokio::spawn({
            let check = Arc::clone(&check);
            async move { timeout(Duration::from_secs(20), check.run()).await }
        });
        // While the question is on its way.
        sleep(Duration::from_millis(10)).await;
        relay.cut();
        let outcome = asked.await.unwrap().unwrap();
        assert_eq!(reason_of(&outcome), None, "round {round}: {outcome:?}");
    }
}
