//! How a server is reached and let in: passwords of every kind, TLS with good and bad certificates, sockets, several
//! servers.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fixtures::tls::{AUTHORITY, CERTIFICATE, KEY};
use peers::certificates::{Authority, Subject};
use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use replication::{Address, Connection, Error, SegmentSize, ServerVersion};

use crate::{chain, open};

const PASSWORD: &str = "tr0ub4dor & 'three'";

fn port(cluster: &Cluster) -> u16 {
    cluster.server().address("postgres").port()
}

async fn try_open(address: &str) -> Result<Connection, Error> {
    let opened = Connection::open(&Address::parse(address).unwrap(), "test").await;
    if let Err(error) = &opened {
        let shown = format!("{} {error:?}", chain(error));
        assert!(!shown.contains("tr0ub4dor"), "{shown}");
    }
    opened
}

async fn let_in(address: &str) {
    let mut connection = try_open(address)
        .await
        .unwrap_or_else(|error| panic!("{address}: {}", chain(&error)));
    connection.identify().await.unwrap();
}

async fn refused(address: &str) -> Error {
    match try_open(address).await {
        Ok(_) => panic!("{address} was let in"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_says_who_it_is() {
    for release in Release::ALL {
        let Some(cluster) = Cluster::start(Postgres::of(release), "a_server_says_who_it_is").await else {
            continue;
        };
        let mut connection = open(&cluster).await;
        assert_eq!(connection.server_version().major(), release.major());
        assert!(connection.server_version() > ServerVersion(release.major() * 10_000));
        let identity = connection.identify().await.unwrap();
        assert_eq!(identity.system.0, cluster.system_identifier().await);
        assert_eq!(identity.timeline.0, 1);
        let size = connection.show("wal_segment_size").await.unwrap();
        assert_eq!(SegmentSize::of_setting(&size), Ok(SegmentSize::DEFAULT));
        let error = connection.show("no_such_setting").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("42704"), "{error}");
        assert!(connection.show("a; DROP").await.is_err());
        // A refusal leaves the connection as it was.
        assert_eq!(connection.identify().await.unwrap().system, identity.system);
        let error = connection.history(identity.timeline).await.unwrap_err();
        assert!(error.is_removed(), "{error}");
    }
}

#[tokio::test]
async fn passwords_are_proved_in_every_way() {
    let recipe = Postgres::default()
        .password(PASSWORD)
        .tls(Path::new(CERTIFICATE), Path::new(KEY))
        .access("host replication md5 127.0.0.1/32 md5")
        .access("host replication plain 127.0.0.1/32 password")
        .access("host replication nobody 127.0.0.1/32 reject");
    let Some(cluster) = Cluster::start(recipe, "passwords_are_proved_in_every_way").await else {
        return;
    };
    let port = port(&cluster);
    // It asks for the password itself, so SQL goes through the client, too.
    let quoted = PASSWORD.replace('\'', r"\'");
    let base = format!("host=127.0.0.1 port={port} password='{quoted}'");
    let address = Address::parse(&format!("{base} user=postgres dbname=postgres")).unwrap();
    let mut sql = replication::Sql::open(&address, "test").await.unwrap();
    let literal = replication::Sql::literal(PASSWORD);
    for statement in [
        "SET password_encryption = 'md5'",
        &format!("CREATE ROLE md5 LOGIN REPLICATION PASSWORD {literal}"),
        "SET password_encryption = 'scram-sha-256'",
        &format!("CREATE ROLE plain LOGIN REPLICATION PASSWORD {literal}"),
        &format!("CREATE ROLE other LOGIN PASSWORD {literal}"),
    ] {
        sql.query(statement).await.unwrap();
    }
    for mode in ["disable", "prefer", "require"] {
        let_in(&format!("{base} user=postgres sslmode={mode}")).await;
        let_in(&format!("{base} user=md5 sslmode={mode}")).await;
    }
    let_in(&format!("{base} user=plain sslmode=require")).await;
    let error = refused(&format!("{base} user=plain sslmode=disable")).await;
    assert!(
        matches!(error, Error::Method { .. }) && error.is_authentication(),
        "{error:?}"
    );

    // Bound to the certificate.
    let_in(&format!("{base} user=postgres sslmode=require channel_binding=require")).await;
    let_in(&format!("{base} user=postgres sslmode=require channel_binding=disable")).await;
    for (user, mode) in [("postgres", "disable"), ("md5", "require"), ("plain", "require")] {
        let error = refused(&format!("{base} user={user} sslmode={mode} channel_binding=require")).await;
        assert!(matches!(error, Error::Method { .. }), "{user} {mode}: {error:?}");
    }

    let wrong = format!("host=127.0.0.1 port={port} password=tr0ub4dor");
    for user in ["postgres", "md5"] {
        let error = refused(&format!("{wrong} user={user}")).await;
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
        assert!(error.is_authentication() && !error.is_unreachable());
    }
    let error = refused(&format!("host=127.0.0.1 port={port} user=postgres")).await;
    assert!(
        matches!(error, Error::NoPassword { .. }) && error.is_authentication(),
        "{error:?}"
    );
    for user in ["other", "nobody"] {
        let error = refused(&format!("{base} user={user}")).await;
        assert!(error.is_authentication(), "{error:?}");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, format!("127.0.0.1:{port}:replication:postgres:{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let_in(&format!(
        "host=127.0.0.1 port={port} user=postgres passfile={}",
        file.display()
    ))
    .await;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(&format!(
        "host=127.0.0.1 port={port} user=postgres passfile={}",
        file.display()
    ))
    .await;
    assert!(matches!(error, Error::File { .. }), "{error:?}");
}

#[tokio::test]
async fn certificates_are_held_against_authority_and_name() {
    let recipe = Postgres::default().tls(Path::new(CERTIFICATE), Path::new(KEY));
    let Some(cluster) = Cluster::start(recipe, "certificates_are_held_against_authority_and_name").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("stranger.pem");
    std::fs::write(&stranger, Authority::new("stranger").unwrap().certificate()).unwrap();
    let stranger = stranger.display();
    let at = |host: &str| format!("host={host} hostaddr=127.0.0.1 port={} user=postgres", port(&cluster));
    for host in ["localhost", "127.0.0.1"] {
        let_in(&format!("{} sslmode=verify-full sslrootcert={AUTHORITY}", at(host))).await;
    }
    let_in(&format!(
        "{} sslmode=verify-ca sslrootcert={AUTHORITY}",
        at("elsewhere.test")
    ))
    .await;
    let_in(&format!("{} sslmode=require", at("elsewhere.test"))).await;
    // The server's own certificate is taken for what it is.
    let_in(&format!(
        "{} sslmode=verify-full sslrootcert={CERTIFICATE}",
        at("localhost")
    ))
    .await;
    let_in(&format!(
        "{} sslmode=verify-ca sslrootcert={CERTIFICATE}",
        at("elsewhere.test")
    ))
    .await;
    for wrong in [
        format!("{} sslmode=verify-full sslrootcert={AUTHORITY}", at("elsewhere.test")),
        format!("{} sslmode=verify-full sslrootcert={CERTIFICATE}", at("elsewhere.test")),
        format!("{} sslmode=verify-full sslrootcert={stranger}", at("localhost")),
        format!("{} sslmode=verify-ca sslrootcert={stranger}", at("localhost")),
        format!("{} sslmode=require sslrootcert={stranger}", at("localhost")),
        format!("{} sslmode=verify-full", at("localhost")),
        format!("{} sslrootcert=system", at("localhost")),
    ] {
        let error = refused(&wrong).await;
        assert!(
            matches!(error, Error::Tls { .. }) && !error.is_unreachable(),
            "{wrong}: {error:?}"
        );
    }
    let error = refused(&format!(
        "{} sslmode=verify-ca sslrootcert=/nowhere.pem",
        at("localhost")
    ))
    .await;
    assert!(matches!(error, Error::File { .. }), "{error:?}");
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("clients").unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("ca.pem"), authority.certificate()).unwrap();
    let subject = |name| Subject {
        name,
        ..Subject::default()
    };
    authority
        .sign(subject("postgres"))
        .unwrap()
        .write(folder.path(), "mine")
        .unwrap();
    authority
        .sign(subject("other"))
        .unwrap()
        .write(folder.path(), "other")
        .unwrap();
    let recipe = Postgres::default()
        .tls(Path::new(CERTIFICATE), Path::new(KEY))
        .clients(&file("ca.pem"))
        .access("hostssl replication postgres 127.0.0.1/32 cert");
    let Some(cluster) = Cluster::start(recipe, "clients_show_certificates_where_they_are_asked_for").await else {
        return;
    };
    let base = format!("host=127.0.0.1 port={} user=postgres sslmode=require", port(&cluster));
    let with = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        format!("{base} sslcert={} sslkey={}", certificate.display(), key.display())
    };
    let_in(&with("mine")).await;
    assert!(refused(&base).await.is_authentication());
    assert!(refused(&with("other")).await.is_authentication());
    std::fs::set_permissions(file("mine.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(&with("mine")).await;
    assert!(matches!(error, Error::File { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_taken_only_where_that_is_allowed() {
    let recipe = Postgres::default().socket();
    let Some(cluster) = Cluster::start(recipe, "a_server_without_tls_is_taken_only_where_that_is_allowed").await else {
        return;
    };
    let port = port(&cluster);
    let_in(&format!("host=127.0.0.1 port={port} user=postgres")).await;
    let error = refused(&format!("host=127.0.0.1 port={port} user=postgres sslmode=require")).await;
    assert!(matches!(error, Error::NoTls { .. }), "{error:?}");
    // A socket needs none.
    let socket = cluster.socket();
    let_in(&format!(
        "host={} port={port} user=postgres sslmode=require",
        socket.display()
    ))
    .await;
    let error = refused(&format!("host={} port=1 user=postgres", socket.display())).await;
    assert!(error.is_unreachable(), "{error:?}");

    // Several servers: the first one that can be used.
    let nobody = "127.0.0.1:1";
    let_in(&format!(
        "postgres://postgres@{nobody},127.0.0.1:{port}/?target_session_attrs=primary"
    ))
    .await;
    let error = refused(&format!(
        "postgres://postgres@{nobody},127.0.0.1:{port}/?target_session_attrs=standby"
    ))
    .await;
    assert!(
        matches!(error, Error::NoServer { .. }) && !error.is_unreachable(),
        "{error:?}"
    );
    assert!(error.to_string().contains(nobody), "{error}");
    let error = refused(&format!("postgres://postgres@{nobody},127.0.0.1:2/")).await;
    assert!(error.is_unreachable(), "{error:?}");
    let error = refused("postgres://postgres@nowhere.invalid/").await;
    assert!(error.is_unreachable(), "{error:?}");
}
