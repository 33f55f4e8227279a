//! The Helm chart and the kustomize overlays of services/deploy: Helm takes the chart, the schemas of Kubernetes and a real
//! API server take what comes out, both forms give the same objects, and these say what the catalogue says.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod forms;
mod meaning;
mod rendered;
mod server;
