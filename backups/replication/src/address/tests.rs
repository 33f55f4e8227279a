//! Tests of how addresses are read: as libpq reads them.

use proptest::prelude::*;

use super::*;

fn tcp(name: &str, port: u16) -> Host {
    let (name, address) = (name.to_owned(), None);
    Host::Tcp { name, address, port }
}

fn unix(folder: &str, port: u16) -> Host {
    let folder = folder.into();
    Host::Unix { folder, port }
}

fn parse(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_url_names_servers_and_who_we_are() {
    let address = parse("postgres://back%40up:p%3Aw%2F%25@db.internal:5433/shop?sslmode=verify-full&connect_timeout=7");
    assert_eq!(address.hosts(), [tcp("db.internal", 5433)]);
    assert_eq!(address.user(), Some("back@up"));
    assert_eq!(address.password(), Some("p:w/%"));
    assert_eq!(address.database(), Some("shop"));
    assert_eq!(address.ssl_mode(), SslMode::VerifyFull);
    assert_eq!(address.connect_timeout(), Some(Duration::from_secs(7)));

    let several = parse("postgresql://me@a,b:2,[2001:db8::1]:3/?target_session_attrs=read-write");
    assert_eq!(several.hosts(), [tcp("a", 5432), tcp("b", 2), tcp("2001:db8::1", 3)]);
    assert_eq!(several.wanted(), Wanted::Primary);
    assert_eq!(several.database(), None);
    assert_eq!(parse("postgres://%2Frun%2Fpg:5434/x").hosts(), [unix("/run/pg", 5434)]);
    assert_eq!(
        parse("postgres:///x?host=/run/pg&port=5434").hosts(),
        [unix("/run/pg", 5434)]
    );
    assert_eq!(parse("postgres://a?ssl=true").ssl_mode(), SslMode::Require);
    let usual = [unix("/var/run/postgresql", 5432), unix("/tmp", 5432)];
    for empty in ["postgres://", "postgresql:///", ""] {
        assert_eq!(parse(empty).hosts(), usual, "{empty}");
    }
}

#[test]
fn pairs_say_the_same() {
    let address = parse(r"host = 'db.internal' port=5433 user=backup password='it\'s a \\ word' dbname=shop");
    assert_eq!(address.hosts(), [tcp("db.internal", 5433)]);
    assert_eq!(address.password(), Some(r"it's a \ word"));
    assert_eq!(parse(r"password=a\ b user=me").password(), Some("a b"));
    assert_eq!(
        parse("host=a,/run/pg,c port=1,,3").hosts(),
        [tcp("a", 1), unix("/run/pg", 5432), tcp("c", 3)]
    );
    assert_eq!(parse("host=a,b port=7").hosts(), [tcp("a", 7), tcp("b", 7)]);
    let named = parse("host=db.internal hostaddr=10.0.0.7");
    let Host::Tcp { name, address, .. } = &named.hosts()[0] else {
        panic!("{named}")
    };
    assert_eq!((name.as_str(), *address), ("db.internal", "10.0.0.7".parse().ok()));
    // What changes nothing for us is no error.
    parse("host=a application_name=x keepalives_idle=3 gssencmode=prefer");
}

#[test]
fn what_would_promise_too_much_is_refused() {
    for wrong in [
        "host=a sslcrl=/x",
        "host=a gssencmode=require",
        "host=a require_auth=scram-sha-256",
        "host=a service=x",
        "host=a sslmode=sometimes",
        "host=a sslmode=verify-ca",
        "host=a sslmode=require sslrootcert=system",
        "host=a sslcert=/x",
        "host=a port=0",
        "host=a port=65536",
        "host=a,b port=1,2,3",
        "host=a,b hostaddr=1.1.1.1",
        "host=a hostaddr=b",
        "host=a/b",
        "host=@abstract",
        "host=a connect_timeout=soon",
        "host=a target_session_attrs=nearest",
        "host='a",
        "host",
        "=a",
        "postgres://[::1/x",
        "postgres://[::1]x/x",
        "postgres://a/%",
        "postgres://a/%zz",
        "postgres://a/%00",
        "postgres://a/%ff",
        "postgres://a?x",
        "postgres://a?ssl=false",
        "mysql://a/b",
    ] {
        assert!(Address::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_authority_that_is_named_is_asked() {
    assert_eq!(
        parse("host=a sslmode=require sslrootcert=/ca.pem").ssl_mode(),
        SslMode::VerifyCa
    );
    assert_eq!(parse("host=a sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
    assert_eq!(parse("host=a").ssl_mode(), SslMode::Prefer);
}

#[test]
fn passwords_are_shown_to_nobody() {
    let secret = "h0rse staple";
    let texts = [
        format!("postgres://me:{}@a/b", secret.replace(' ', "%20")),
        format!("host=a user=me password='{secret}' options='-c x={secret}'"),
    ];
    for text in texts {
        let address = parse(&text);
        let shown = format!("{address} {address:?} {:?}", address.clone().with_password(secret));
        assert!(!shown.contains("h0rse") && !shown.contains("staple"), "{shown}");
        let pairs = address.environment();
        assert!(
            pairs
                .iter()
                .all(|(name, value)| *name == "PGOPTIONS" || !value.contains("h0rse")),
            "{pairs:?}"
        );
    }
    // The rest of a password that was not quoted stands where a key should be.
    for text in [
        "password=h0rse staple",
        "password=h0rse staple user=me",
        "password=h0rse staple=1 user=me",
        "password='h0rse",
        "postgres://me:h0rse@a:staple/b",
    ] {
        let error = Address::parse(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("h0rse") && !shown.contains("staple"), "{shown}");
    }
}

#[test]
fn programs_of_libpq_are_told_by_their_environment() {
    let address = parse("postgres://me:word@a:1,b/shop?sslmode=verify-ca&sslrootcert=/ca.pem&connect_timeout=5");
    let environment = address.environment();
    let get = |name| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(get("PGHOST"), Some("a,b"));
    assert_eq!(get("PGPORT"), Some("1,5432"));
    assert_eq!(get("PGHOSTADDR"), None);
    assert_eq!(get("PGSSLMODE"), Some("verify-ca"));
    assert_eq!(get("PGSSLROOTCERT"), Some("/ca.pem"));
    assert_eq!(get("PGPASSWORD"), None);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}") {
        let _ = Address::parse(&text);
        let _ = Address::parse(&format!("postgres://{text}"));
    }

    #[test]
    fn what_is_shown_says_the_same(
        user in "[^\0]{1,8}", database in "[^\0]{1,8}", host in "[a-z.]{1,8}", port in 1..=u16::MAX,
    ) {
        let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, crate::address::PLAIN).to_string();
        let address = parse(&format!("postgres://{}@{host}:{port}/{}", encoded(&user), encoded(&database)));
        prop_assert_eq!(address.user(), Some(user.as_str()));
        prop_assert_eq!(address.database(), Some(database.as_str()));
        prop_assert_eq!(parse(&address.to_string()), address);
    }

    #[test]
    fn any_password_passes_through_quotes(password in "[^\0]{1,20}") {
        let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
        let address = parse(&format!("user='x' password='{quoted}' host=a"));
        prop_assert_eq!(address.password(), Some(password.as_str()));
    }
}
