//! What is deployed: the reference services as opsctl.toml has them, and the servers that take their logs, traces and
//! metrics. Every form of the deployment is made from this.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{configuration, image};

/// One program and everything that its surroundings must know of it.
pub struct Container {
    pub name: String,
    pub image: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Variables that whoever deploys may choose otherwise.
    pub choices: Vec<(&'static str, &'static str)>,
    pub ports: Vec<Port>,
    /// A file of this folder, and where the program looks for it.
    pub configuration: Option<(&'static str, &'static str)>,
    /// Where it keeps what must outlive it.
    pub data: Option<&'static str>,
    /// The user that its image is made for; never root.
    pub user: u32,
    /// How many beside each other, where they can share their data.
    pub replicas: u64,
    pub probes: Probes,
    pub memory_mib: u32,
    pub needs: Vec<String>,
    /// Started only when asked for, instead of another one.
    pub optional: bool,
}

/// A port that others connect to.
pub struct Port {
    pub name: &'static str,
    pub number: u16,
    /// Whether people on the same machine reach it, too.
    pub published: bool,
}

/// What is asked over HTTP to see how a program is.
pub struct Probes {
    pub port: u16,
    pub startup: &'static str,
    pub ready: &'static str,
    pub live: Option<&'static str>,
}

/// What these pages read of opsctl.toml.
#[derive(Deserialize)]
struct Catalogue {
    defaults: Defaults,
    service: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Defaults {
    service: Service,
}

#[derive(Deserialize, Default)]
struct Service {
    #[serde(default)]
    team: String,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    uses: Vec<String>,
    #[serde(default)]
    local: Local,
    #[serde(default)]
    objectives: Objectives,
}

#[derive(Deserialize, Default)]
struct Local {
    replicas: Option<u64>,
    #[serde(default)]
    command: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Objectives {
    latency_p95: Option<String>,
}

/// The whole deployment.
pub struct Stack {
    pub containers: Vec<Container>,
    pub services: Vec<Listed>,
    /// From how many milliseconds on a request counts as slow: the longest of the services' objectives.
    pub slow_ms: u128,
}

/// A service as the catalogue lists it.
pub struct Listed {
    pub name: String,
    /// Who answers for it.
    pub team: String,
    /// The services that it calls.
    pub depends_on: Vec<String>,
}

/// The ports of every service.
pub const HTTP: u16 = 8080;
pub const GRPC: u16 = 9090;
/// The user of the services' image; the number that images without a distribution use.
pub const SERVICE_USER: u32 = 65532;

impl Stack {
    /// From the project's opsctl.toml.
    ///
    /// # Errors
    /// When it cannot be read, or an objective is no duration.
    pub fn read() -> Result<Self> {
        let file = peers::workspace_root().join("opsctl.toml");
        let text = fs::read_to_string(file).context("could not read opsctl.toml")?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let catalogue: Catalogue = toml::from_str(text).context("opsctl.toml is not as expected")?;
        let defaults = &catalogue.defaults.service;
        let mut slow_ms = 0;
        let mut containers = Vec::new();
        for (name, service) in &catalogue.service {
            containers.push(service_container(name, service, defaults));
            if let Some(latency) = service
                .objectives
                .latency_p95
                .as_ref()
                .or(defaults.objectives.latency_p95.as_ref())
            {
                let latency =
                    humantime::parse_duration(latency).with_context(|| format!("the latency objective of {name}"))?;
                slow_ms = slow_ms.max(latency.as_millis());
            }
        }
        containers.extend(servers());
        Ok(Self {
            containers,
            services: catalogue.service.into_iter().map(listed).collect(),
            slow_ms,
        })
    }
}

fn listed((name, service): (String, Service)) -> Listed {
    Listed {
        name,
        team: service.team,
        depends_on: service.depends_on,
    }
}

fn service_container(name: &str, service: &Service, defaults: &Service) -> Container {
    let mut environment = vec![
        ("HTTP_ADDR".to_owned(), format!("0.0.0.0:{HTTP}")),
        ("GRPC_ADDR".to_owned(), format!("0.0.0.0:{GRPC}")),
        ("DATA_DIR".to_owned(), "/data".to_owned()),
        ("APP_ENV".to_owned(), "production".to_owned()),
        ("LOKI_URL".to_owned(), "http://loki:3100".to_owned()),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
            "http://collector:4318".to_owned(),
        ),
        // The collector decides what is kept once it has seen the whole trace; it must see all of them.
        ("OTEL_TRACES_SAMPLER".to_owned(), "parentbased_always_on".to_owned()),
    ];
    for other in &service.depends_on {
        let variable = other.to_uppercase().replace('-', "_");
        environment.push((format!("{variable}_URL"), format!("http://{other}:{HTTP}")));
        environment.push((format!("{variable}_GRPC_URL"), format!("http://{other}:{GRPC}")));
    }
    Container {
        name: name.to_owned(),
        image: image::NAME.to_owned(),
        arguments: service.local.command.clone(),
        environment,
        choices: Vec::new(),
        ports: vec![
            Port {
                name: "http",
                number: HTTP,
                published: false,
            },
            Port {
                name: "grpc",
                number: GRPC,
                published: false,
            },
        ],
        configuration: None,
        data: (!service.uses.is_empty()).then_some("/data"),
        user: SERVICE_USER,
        replicas: service.local.replicas.or(defaults.local.replicas).unwrap_or(1),
        probes: Probes {
            port: HTTP,
            startup: "/health/startup",
            ready: "/health/ready",
            live: Some("/health/live"),
        },
        memory_mib: 128,
        needs: [&service.depends_on[..], &["collector".to_owned(), "loki".to_owned()]].concat(),
        optional: false,
    }
}

/// The servers that take what the services tell.
fn servers() -> Vec<Container> {
    let server = |name: &str, image: &str, ports: Vec<Port>, probes: Probes| Container {
        name: name.to_owned(),
        image: image.to_owned(),
        arguments: Vec::new(),
        environment: Vec::new(),
        choices: Vec::new(),
        ports,
        configuration: None,
        data: None,
        user: 10001,
        replicas: 1,
        probes,
        memory_mib: 512,
        needs: Vec::new(),
        optional: false,
    };
    let port = |name, number, published| Port {
        name,
        number,
        published,
    };
    let probe = |port, ready| Probes {
        port,
        startup: ready,
        ready,
        live: None,
    };
    vec![
        Container {
            arguments: vec!["--config=/etc/otelcol/config.yaml".to_owned()],
            choices: vec![("TRACES_ENDPOINT", "jaeger:4317"), ("DECISION_WAIT", "10s")],
            configuration: Some((configuration::COLLECTOR, "/etc/otelcol/config.yaml")),
            needs: vec!["jaeger".to_owned(), "prometheus".to_owned(), "loki".to_owned()],
            ..server(
                "collector",
                "otel/opentelemetry-collector-contrib:0.161.0",
                vec![
                    port("otlp-grpc", 4317, false),
                    port("otlp-http", 4318, false),
                    port("metrics", 8888, false),
                ],
                probe(13133, "/"),
            )
        },
        Container {
            arguments: vec!["--config-file=/etc/jaeger/jaeger.yaml".to_owned()],
            environment: vec![("SPAN_STORAGE_TYPE".to_owned(), "memory".to_owned())],
            configuration: Some((configuration::JAEGER, "/etc/jaeger/jaeger.yaml")),
            ..server(
                "jaeger",
                "jaegertracing/all-in-one:1.62.0",
                vec![
                    port("otlp-grpc", 4317, false),
                    port("query", 16686, true),
                    port("metrics", 14269, false),
                ],
                probe(14269, "/"),
            )
        },
        Container {
            arguments: vec![
                "--config.file=/etc/prometheus/prometheus.yaml".to_owned(),
                "--storage.tsdb.path=/prometheus".to_owned(),
                "--enable-feature=exemplar-storage".to_owned(),
                "--web.enable-otlp-receiver".to_owned(),
            ],
            configuration: Some((configuration::PROMETHEUS, "/etc/prometheus/prometheus.yaml")),
            data: Some("/prometheus"),
            user: 65534,
            ..server(
                "prometheus",
                "prom/prometheus:v3.15.0",
                vec![port("http", 9090, true)],
                probe(9090, "/-/ready"),
            )
        },
        Container {
            arguments: vec!["-config.file=/etc/loki/loki.yaml".to_owned()],
            configuration: Some((configuration::LOKI, "/etc/loki/loki.yaml")),
            data: Some("/loki"),
            ..server(
                "loki",
                "grafana/loki:3.7.8",
                vec![port("http", 3100, true)],
                probe(3100, "/ready"),
            )
        },
        Container {
            arguments: vec!["-config.file=/etc/tempo/tempo.yaml".to_owned()],
            configuration: Some((configuration::TEMPO, "/etc/tempo/tempo.yaml")),
            data: Some("/var/tempo"),
            optional: true,
            ..server(
                "tempo",
                "grafana/tempo:2.9.0",
                vec![port("otlp-grpc", 4317, false), port("http", 3200, true)],
                probe(3200, "/ready"),
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOGUE: &str = r#"
        [defaults.service]
        objectives = { latency_p95 = "300ms" }
        local = { replicas = 2 }
        [service.shop]
        depends_on = ["pay-out"]
        local = { command = ["shop", "--fast"] }
        [service.pay-out]
        uses = ["money"]
        objectives = { latency_p95 = "1s" }
        local = { command = ["pay-out"], replicas = 3 }
    "#;

    #[test]
    fn the_catalogue_says_what_runs_and_what_is_slow() {
        let stack = Stack::parse(CATALOGUE).unwrap();
        let names: Vec<&str> = stack.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["pay-out", "shop"]);
        assert_eq!(stack.slow_ms, 1000);
        let of = |name: &str| {
            stack
                .containers
                .iter()
                .find(|container| container.name == name)
                .unwrap()
        };
        let shop = of("shop");
        assert_eq!(shop.arguments, ["shop", "--fast"]);
        assert_eq!((shop.replicas, shop.data), (2, None));
        let variable = |name: &str| {
            shop.environment
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(variable("PAY_OUT_URL"), Some("http://pay-out:8080"));
        assert_eq!(variable("PAY_OUT_GRPC_URL"), Some("http://pay-out:9090"));
        assert!(shop.needs.contains(&"pay-out".to_owned()));
        assert_eq!((of("pay-out").replicas, of("pay-out").data), (3, Some("/data")));
    }

    #[test]
    fn an_objective_that_is_no_duration_is_refused_by_name() {
        let error = Stack::parse(&CATALOGUE.replace("1s", "fast")).map(drop).unwrap_err();
        assert!(error.to_string().contains("pay-out"), "{error}");
    }
}
