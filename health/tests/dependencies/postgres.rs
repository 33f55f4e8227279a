//! PostgreSQL over deadpool-postgres.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool, Runtime};
use health::{Outcome, PostgresCheck, Reason};
use peers::{Recipe, Server, servers};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use crate::contract::{AnyCheck, Dependency, PASSWORD, WRONG, ask, holds, reason_of, until};

struct Postgres;

impl Dependency for Postgres {
    const PORT: &'static str = "postgres";

    fn recipe() -> impl Recipe {
        servers::Postgres::default().password(PASSWORD)
    }

    async fn check(address: SocketAddr) -> AnyCheck {
        Arc::new(PostgresCheck::pool(&pool(address, "postgres", PASSWORD, 4)).writable())
    }

    async fn check_with_wrong_password(address: SocketAddr) -> Option<AnyCheck> {
        Some(Arc::new(PostgresCheck::pool(&pool(address, "postgres", WRONG, 4))))
    }
}

/// A pool of the application's, of at most `size` connections.
pub fn pool(address: SocketAddr, user: &str, password: &str, size: usize) -> Pool {
    let manager = Manager::new(config(address, user, password), NoTls);
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .build()
        .unwrap()
}

fn config(address: SocketAddr, user: &str, password: &str) -> Config {
    let mut config = Config::new();
    config
        .host(address.ip().to_string())
        .port(address.port())
        .user(user)
        .password(password)
        .dbname("postgres");
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract() {
    holds::<Postgres>("postgres_keeps_the_contract").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_is_a_warning_and_a_hanging_server_behind_it_is_not() {
    let test = "a_full_pool_is_a_warning_and_a_hanging_server_behind_it_is_not";
    let recipe = servers::Postgres::default().setting("max_connections", "8");
    let Some(server) = Server::start(recipe, test).await else {
        return;
    };
    let address = server.address("postgres");
    let (pool, reserved) = (pool(address, "postgres", "", 1), pool(address, "postgres", "", 1));
    let plain: AnyCheck = Arc::new(PostgresCheck::pool(&pool).acquire_within(Duration::from_millis(100)));
    let sure: AnyCheck = Arc::new(
        PostgresCheck::pool(&pool)
            .acquire_within(Duration::from_millis(100))
            .reserved(&reserved),
    );
    until(&plain, test, None).await;
    let busy = pool.get().await.unwrap();
    for check in [&plain, &sure] {
        let outcome = ask(check).await;
        assert!(
            matches!(&outcome, Outcome::Warn(full) if full.reason == Reason::Saturated),
            "{outcome:?}"
        );
    }
    server.pause();
    let outcome = ask(&sure).await;
    assert!(
        matches!(&outcome, Outcome::Fail(hangs) if hangs.reason == Reason::Timeout),
        "{outcome:?}"
    );
    server.resume();
    drop(busy);
    until(&plain, test, None).await;
    server.pause();
    assert_eq!(reason_of(&ask(&plain).await), Some(Reason::Timeout));
    assert_eq!(
        pool.status().size,
        0,
        "the next borrower would wait for the check's answer"
    );
    server.resume();
    until(&plain, test, None).await;

    // The server's own limit: nobody gets in, so that is no warning.
    let (idle, mut others) = (pool.get().await.unwrap(), Vec::new());
    while let Ok((client, connection)) = config(address, "postgres", "").connect(NoTls).await {
        tokio::spawn(connection);
        others.push(client);
    }
    drop(deadpool_postgres::Object::take(idle));
    let (client, connection) = loop {
        // The slot that was just left, taken before the pool comes back for it.
        if let Ok(taken) = config(address, "postgres", "").connect(NoTls).await {
            break taken;
        }
    };
    tokio::spawn(connection);
    let outcome = ask(&plain).await;
    assert!(
        matches!(&outcome, Outcome::Fail(full) if full.reason == Reason::Saturated),
        "{outcome:?}"
    );
    drop((others, client));
    until(&plain, test, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_postgres_refuses_is_told_apart() {
    let test = "what_a_postgres_refuses_is_told_apart";
    let recipe = servers::Postgres::default().setting("default_transaction_read_only", "on");
    let Some(server) = Server::start(recipe, test).await else {
        return;
    };
    let address = server.address("postgres");
    let of = |config: Config| -> AnyCheck {
        let pool = Pool::builder(Manager::new(config, NoTls)).max_size(1).build().unwrap();
        Arc::new(PostgresCheck::pool(&pool))
    };
    let plain = config(address, "postgres", "");
    assert_eq!(
        reason_of(&ask(&of(plain.clone())).await),
        None,
        "a pool without a runtime works too"
    );
    let read_only: AnyCheck = Arc::new(PostgresCheck::pool(&pool(address, "postgres", "", 1)).writable());
    assert_eq!(reason_of(&ask(&read_only).await), Some(Reason::Protocol));
    let nobody = config(address, "nobody", "");
    assert_eq!(reason_of(&ask(&of(nobody)).await), Some(Reason::Auth));
    let mut nowhere = plain.clone();
    nowhere.dbname("no-such-database");
    assert_eq!(reason_of(&ask(&of(nowhere)).await), Some(Reason::Protocol));
    let mut tls = plain.clone();
    tls.ssl_mode(SslMode::Require);
    assert_eq!(reason_of(&ask(&of(tls)).await), Some(Reason::Tls));
    let mut unknown = Config::new();
    unknown.host("no-such-host.invalid").user("postgres");
    let outcome = ask(&of(unknown)).await;
    // A resolver that does not answer at all is as good an answer, where there is no network.
    assert!(
        matches!(reason_of(&outcome), Some(Reason::Dns | Reason::Timeout)),
        "{outcome:?}"
    );
}
