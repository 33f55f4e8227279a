//! What the builder refuses, by the key that is wrong, and what settings change.

use std::time::Duration;

use health::{
    CheckSettings, DetailsListener, DetailsSettings, Drain, Health, HealthBuilder, Lifecycle, OnDown, Role, Settings,
    Spec, State, Token,
};

#[path = "support/dependency.rs"]
mod dependency;
use dependency::{Dependency, until};

fn spec() -> Spec {
    Spec::critical("db", || async {})
}

fn said(check: CheckSettings) -> HealthBuilder {
    let checks = [("db".to_owned(), check)].into();
    Health::builder().check(spec()).settings(Settings {
        checks,
        ..Settings::default()
    })
}

#[tokio::test]
async fn mistakes_are_told_by_their_key() {
    let ok = || async {};
    let all = Settings {
        details: DetailsSettings {
            listener: DetailsListener::All,
            ..DetailsSettings::default()
        },
        ..Settings::default()
    };
    let short = Settings {
        details: DetailsSettings {
            token: Some(Token::new("secret")),
            ..all.details.clone()
        },
        ..Settings::default()
    };
    let of = |spec: Spec| Health::builder().check(spec);
    for (builder, words) in [
        (
            Health::builder().critical("a", ok).degraded("a", ok),
            "two checks named a",
        ),
        (Health::builder().critical("two words", ok), "no name for a check"),
        (
            of(spec().interval(Duration::from_secs(1)).timeout(Duration::from_secs(1))),
            "health.checks.db.timeout",
        ),
        (of(spec().timeout(Duration::ZERO)), "health.checks.db.timeout"),
        (of(spec().interval(Duration::MAX)), "health.checks.db.interval"),
        (of(spec().down_after(0)), "health.checks.db.failures"),
        (of(spec().up_after(0)), "health.checks.db.successes"),
        (
            of(Spec::degraded("db", ok).on_down(OnDown::NotReady)),
            "health.checks.db.on_down",
        ),
        (
            of(Spec::informative("db", ok).required_at_start(true)),
            "health.checks.db.required_at_start",
        ),
        (
            said(CheckSettings {
                timeout: Some(Duration::from_secs(10)),
                ..CheckSettings::default()
            }),
            "health.checks.db.timeout",
        ),
        (
            Health::builder().check(Spec::critical("cache", ok)).settings(Settings {
                checks: [("db".to_owned(), CheckSettings::default())].into(),
                ..Settings::default()
            }),
            "health.checks.db: there is no such check; there are: cache",
        ),
        (
            of(spec()).group("ready", ["db"]),
            "health.groups.ready: this name is taken",
        ),
        (of(spec()).group("a/b", ["db"]), "health.groups.a/b"),
        (
            of(spec()).group("a", ["cache"]),
            "health.groups.a: there is no check cache; there are: db",
        ),
        (
            of(spec()).group("a", Vec::<String>::new()),
            "health.groups.a: it has no check",
        ),
        (of(spec()).group("a", ["db"]).group("a", ["db"]), "this name is taken"),
        (of(spec()).grpc_name_of_group("shop", "none"), "there is no group none"),
        (Health::builder().settings(all), "health.details.token_env"),
        (
            Health::builder().settings(short),
            "health.details.token_env: the token is shorter",
        ),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(words), "{words} in {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Health::builder()
        .listen(taken.local_addr().unwrap())
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("health.listen"), "{error}");
}

#[test]
fn there_must_be_a_runtime() {
    assert!(Health::builder().build().is_err());
}

#[tokio::test(start_paused = true)]
async fn settings_go_before_what_the_service_says() {
    let db = Dependency::default();
    let changed = CheckSettings {
        on_down: Some(OnDown::NotReady),
        failures: Some(1),
        interval: Some(Duration::from_secs(2)),
        ..CheckSettings::default()
    };
    // As the environment spells it.
    let settings = Settings {
        checks: [("MY_DB".to_owned(), changed)].into(),
        ..Settings::default()
    };
    let health = Health::builder()
        .check(Spec::critical("my-db", db.check()).on_down(OnDown::Degrade))
        .settings(settings)
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    db.set_down(true);
    let before = db.asked();
    until(&health, State::NotReady).await;
    assert_eq!(db.asked() - before, 1);
    let informative = CheckSettings {
        kind: Some(Role::Informative),
        ..CheckSettings::default()
    };
    let checks = [("db".to_owned(), informative)].into();
    let health = Health::builder()
        .check(spec().on_down(OnDown::NotReady).required_at_start(true))
        .settings(Settings {
            checks,
            ..Settings::default()
        })
        .build()
        .unwrap();
    assert_eq!(health.state(), State::Ready, "nothing to wait for");
}

#[test]
fn an_end_that_takes_longer_than_there_is_time_is_refused() {
    let default = Drain::default();
    assert_eq!(default.total(), Duration::from_secs(27));
    Lifecycle::without_signals(default).unwrap();
    let longer = Drain {
        timeout: Duration::from_secs(21),
        ..default
    };
    let error = Lifecycle::without_signals(longer).unwrap_err().to_string();
    assert!(
        error.contains("health.drain") && error.contains("21s") && error.contains("30s"),
        "{error}"
    );
    let more_time = Drain {
        grace: Duration::from_secs(60),
        ..longer
    };
    Lifecycle::without_signals(more_time).unwrap();
}
