//! Loki, one process with its data in files. It is ready at once: it waits for no other ingesters.

use std::{collections::BTreeMap, io};

use super::program;
use crate::{Place, Port, Program, Ready, Recipe};

/// A Loki. Ports: `http`, `grpc`.
#[derive(Debug, Clone, Default)]
pub struct Loki {
    limits: BTreeMap<String, String>,
    tenants: bool,
}

impl Loki {
    /// Sets a key of `limits_config`, such as `max_line_size` to `1KB`.
    #[must_use]
    pub fn limit(mut self, key: &str, value: &str) -> Self {
        self.limits.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Asks for a tenant (`X-Scope-OrgID`) with every request.
    #[must_use]
    pub fn with_tenants(mut self) -> Self {
        self.tenants = true;
        self
    }

    fn configuration(&self, place: &Place) -> String {
        let (http, grpc) = (place.port("http"), place.port("grpc"));
        let data = place.folder().join("data");
        let data = data.display();
        let tenants = self.tenants;
        let limits: Vec<String> = self
            .limits
            .iter()
            .map(|(key, value)| format!("  {key}: {value}\n"))
            .collect();
        let limits = limits.concat();
        format!(
            "auth_enabled: {tenants}
server:
  http_listen_address: 127.0.0.1
  http_listen_port: {http}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: {grpc}
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: {data}
  replication_factor: 1
  ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}
  storage:
    filesystem: {{chunks_directory: {data}/chunks, rules_directory: {data}/rules}}
ingester:
  lifecycler: {{min_ready_duration: 0s, final_sleep: 0s}}
schema_config:
  configs:
    - from: 2020-01-01
      store: tsdb
      object_store: filesystem
      schema: v13
      index: {{prefix: index_, period: 24h}}
analytics: {{reporting_enabled: false}}
limits_config:
  allow_structured_metadata: true
{limits}"
        )
    }
}

impl Recipe for Loki {
    fn peer(&self) -> &'static str {
        "loki"
    }

    fn ports(&self) -> &'static [Port] {
        const { &[Port::http("http"), Port::http("grpc")] }
    }

    fn prepare(&self, place: &Place) -> io::Result<Vec<Program>> {
        let config = place.write("loki.yaml", &self.configuration(place))?;
        let config = format!("-config.file={}", config.display());
        Ok(vec![Program::new(program("loki")?).arg(config)])
    }

    fn ready(&self) -> Ready {
        Ready::Http {
            port: "http",
            path: "/ready",
        }
    }
}
