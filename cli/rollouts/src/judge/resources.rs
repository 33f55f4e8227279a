//! What the pods of both versions use, side by side. It is told and judges nothing: a limit is a criterion of the service.

use opsctl_platform::Usage;
use serde::{Deserialize, Serialize};

/// CPU and memory of both versions, while both had traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// The stable version's pods.
    pub stable: PerPod,
    /// The canary's pods.
    pub canary: PerPod,
}

/// What one pod uses. Numbers that nobody tells are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PerPod {
    /// Pods at the last look.
    pub pods: u64,
    /// CPU seconds per second: the middle one of the pods at the last look.
    pub cpu_cores_median: Option<f64>,
    /// The most that a pod had at any look.
    pub cpu_cores_max: Option<f64>,
    /// Memory: the middle one of the pods at the last look.
    pub memory_bytes_median: Option<f64>,
    /// The most that a pod had at any look.
    pub memory_bytes_max: Option<f64>,
}

impl Resources {
    /// Takes in a look at both versions.
    pub fn add(&mut self, usage: &[Usage], stable: &str, canary: &str) {
        self.stable.add(usage.iter().filter(|pod| pod.version == stable));
        self.canary.add(usage.iter().filter(|pod| pod.version == canary));
    }

    /// Whether anybody told anything.
    pub fn is_known(&self) -> bool {
        [&self.stable, &self.canary]
            .iter()
            .any(|arm| arm.cpu_cores_max.is_some() || arm.memory_bytes_max.is_some())
    }
}

impl PerPod {
    fn add<'a>(&mut self, pods: impl Iterator<Item = &'a Usage> + Clone) {
        self.pods = pods.clone().count() as u64;
        let cpu: Vec<f64> = pods.clone().filter_map(|pod| pod.cpu_cores).collect();
        let memory: Vec<f64> = pods.filter_map(|pod| pod.memory_bytes).collect();
        take(cpu, &mut self.cpu_cores_median, &mut self.cpu_cores_max);
        take(memory, &mut self.memory_bytes_median, &mut self.memory_bytes_max);
    }
}

/// A look without a number leaves what was known.
fn take(mut values: Vec<f64>, median: &mut Option<f64>, max: &mut Option<f64>) {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (Some(last), middle) = (values.last().copied(), values.len() / 2) else {
        return;
    };
    *median = Some(if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    });
    *max = Some(max.map_or(last, |max| max.max(last)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(version: &str, cpu_cores: Option<f64>, memory_bytes: Option<f64>) -> Usage {
        Usage {
            instance: String::new(),
            version: version.to_owned(),
            cpu_cores,
            memory_bytes,
        }
    }

    #[test]
    fn the_middle_is_of_now_and_the_most_of_all_looks() {
        let mut resources = Resources::default();
        assert!(!resources.is_known());
        let look = [
            pod("v1", Some(0.1), Some(100.0)),
            pod("v1", Some(0.3), None),
            pod("v2", Some(0.9), Some(200.0)),
        ];
        resources.add(&look, "v1", "v2");
        resources.add(&[pod("v1", Some(0.2), None), pod("v2", None, Some(150.0))], "v1", "v2");
        let stable = resources.stable;
        assert_eq!(
            (stable.pods, stable.cpu_cores_median, stable.cpu_cores_max),
            (1, Some(0.2), Some(0.3))
        );
        assert_eq!(
            (stable.memory_bytes_median, stable.memory_bytes_max),
            (Some(100.0), Some(100.0))
        );
        let canary = resources.canary;
        assert_eq!(
            (canary.cpu_cores_max, canary.memory_bytes_median),
            (Some(0.9), Some(150.0))
        );
        assert_eq!(canary.memory_bytes_max, Some(200.0));
        assert!(resources.is_known());
    }
}
