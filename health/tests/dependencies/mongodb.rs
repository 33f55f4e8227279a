//! MongoDB's client against FerretDB, which speaks its protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use health::{Cause, MongoCheck};
use mongodb::Client;
use mongodb::options::ClientOptions;
use peers::{Recipe, servers};

use crate::contract::{AnyCheck, Dependency, holds};

struct MongoDb;

impl Dependency for MongoDb {
    const PORT: &'static str = "mongodb";

    fn recipe() -> impl Recipe {
        servers::FerretDb
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        let mut options = ClientOptions::parse(format!("mongodb://{address}/")).await.unwrap();
        let cause = Cause::new();
        cause.watch_mongodb(&mut options);
        let client = Client::with_options(options).unwrap();
        Arc::new(MongoCheck::new(&client.database("orders")).explained_by(&cause))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_keeps_the_contract() {
    holds::<MongoDb>("mongodb_keeps_the_contract").await;
}
