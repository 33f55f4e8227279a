//! Landscapes that tests derive rules from.

use std::time::Duration;

use manifest::landscape::{
    Canary, Datastore, DatastoreKind, Instrumentation, Landscape, Latency, Links, Platform, Ratio, Schedule, Selector,
    Service, Sli, Team, Webhook,
};

/// That of the reference services, as the catalogue file of this project says.
pub fn reference() -> Landscape {
    serde_json::from_str(include_str!("../reference/landscape.json")).unwrap()
}

/// A shop on Kubernetes, with a service for each way to count requests.
pub fn cluster() -> Landscape {
    let minutes = |minutes| Some(Duration::from_mins(minutes));
    Landscape {
        environment: "production".to_owned(),
        platform: Platform::Kubernetes,
        scrape_interval: Duration::from_secs(30),
        evaluation_interval: Duration::from_secs(30),
        services: vec![
            Service {
                availability: Ratio::new(0.9995),
                exports: [
                    Instrumentation::CircuitBreaker,
                    Instrumentation::DatabasePool,
                    Instrumentation::DeadLetters,
                    Instrumentation::Health,
                    Instrumentation::Outbox,
                    Instrumentation::Retry,
                    Instrumentation::Saga,
                ]
                .into(),
                latency: Some(Latency {
                    quantile: Ratio::new(0.99).unwrap(),
                    bound: Duration::from_secs(1),
                }),
                ..service("checkout", Sli::Opsctl)
            },
            service("catalogue", Sli::OtelHttp),
            service(
                "legacy",
                Sli::Traefik(Selector::default().matching("service", "shop-legacy-http-[0-9]+@kubernetesgateway")),
            ),
            Service {
                latency: None,
                ..service(
                    "queue",
                    Sli::Custom {
                        total: "jobs_total{queue=\"shop\"}".to_owned(),
                        errors: "jobs_total{queue=\"shop\", result=\"failed\"}".to_owned(),
                        slow: None,
                    },
                )
            },
            Service {
                availability: None,
                latency: None,
                team: None,
                ..service("batch", Sli::Opsctl)
            },
        ],
        datastores: vec![
            Datastore {
                name: "pg-main".to_owned(),
                kind: DatastoreKind::Postgres,
                rpo: minutes(5),
                rto: minutes(30),
                prove_every: minutes(8 * 24 * 60),
                schedule: Some(Schedule {
                    cron: "0 2 * * *".to_owned(),
                    longest_gap: Duration::from_hours(24),
                }),
                continuous: true,
                log: true,
                exporter: Some(Selector::job("postgres")),
            },
            Datastore {
                name: "uploads".to_owned(),
                kind: DatastoreKind::Files,
                rpo: None,
                rto: None,
                prove_every: None,
                schedule: Some(Schedule {
                    cron: "0 3 * * SUN".to_owned(),
                    longest_gap: Duration::from_hours(7 * 24),
                }),
                continuous: false,
                log: false,
                exporter: None,
            },
            Datastore {
                name: "scratch".to_owned(),
                kind: DatastoreKind::Redis,
                rpo: None,
                rto: None,
                prove_every: None,
                schedule: None,
                continuous: false,
                log: false,
                exporter: None,
            },
        ],
        teams: vec![
            Team {
                name: "pay".to_owned(),
                webhook: Some(Webhook::File("/run/secrets/pay".to_owned())),
            },
            Team {
                name: "shop".to_owned(),
                webhook: Some(Webhook::Secret {
                    namespace: "monitoring".to_owned(),
                    name: "shop-alerts".to_owned(),
                    key: "url".to_owned(),
                }),
            },
        ],
        canary: Some(Canary {
            stuck_after: Duration::from_hours(12),
        }),
        links: Links {
            dashboards: Some("https://grafana.internal".to_owned()),
            runbooks: Some("https://docs.internal/runbooks".to_owned()),
        },
    }
}

/// A service of the shop.
pub fn service(name: &str, sli: Sli) -> Service {
    Service {
        name: name.to_owned(),
        team: Some(if name == "checkout" { "pay" } else { "shop" }.to_owned()),
        selector: Selector::pods("shop", name),
        namespace: Some("shop".to_owned()),
        deployment: Some(name.to_owned()),
        sli,
        availability: Ratio::new(0.999),
        latency: Some(Latency {
            quantile: Ratio::new(0.95).unwrap(),
            bound: Duration::from_millis(100),
        }),
        exports: [Instrumentation::Health].into(),
        uses: vec!["pg-main".to_owned()],
        depends_on: Vec::new(),
    }
}
