//! Whether messages come through, as Alertmanager's own metrics tell: how many of its requests to receivers of a kind
//! failed. The metrics count since it started and are described in `notify/notify.go` of Alertmanager.

use std::collections::BTreeMap;

use manifest::capture::sample;

const BEGINNING: &str = "alertmanager_notification_requests_";
/// Alertmanager knows some twenty kinds; with a feature it tells each receiver apart.
const MOST: usize = 10_000;

/// The requests of an Alertmanager to receivers of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// `webhook`, `email` and so on.
    pub integration: String,
    /// The one receiver that is meant, where Alertmanager tells them apart (`receiver-name-in-metrics`).
    pub receiver: Option<String>,
    /// Requests since it started, each attempt for itself.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
}

impl Delivery {
    /// As findings name it.
    pub(super) fn to(&self) -> String {
        match &self.receiver {
            Some(receiver) => format!("`{receiver}` ({})", self.integration),
            None => format!("receivers of the kind `{}`", self.integration),
        }
    }
}

/// What is counted in an answer of `/metrics`; nothing where nothing is.
pub(super) fn read(text: &str) -> Result<Vec<Delivery>, String> {
    let mut all = BTreeMap::<(String, Option<String>), Delivery>::new();
    for line in text.lines().filter(|line| line.starts_with(BEGINNING)) {
        let read = sample(line)?;
        let mut labels: BTreeMap<_, _> = read.labels.into_iter().collect();
        let Some(integration) = labels.remove("integration") else {
            continue;
        };
        let receiver = labels.remove("receiver_name");
        if all.len() == MOST {
            return Err(format!("it has more than {MOST} kinds of receivers"));
        }
        let delivery = all.entry((integration.clone(), receiver.clone())).or_default();
        (delivery.integration, delivery.receiver) = (integration, receiver);
        // Counters are whole numbers that are not negative; a cast leaves nothing else.
        match read.name.strip_prefix(BEGINNING) {
            Some("total") => delivery.requests = read.value as u64,
            Some("failed_total") => delivery.failed = read.value as u64,
            _ => {}
        }
    }
    Ok(all.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(receiver: Option<&str>, requests: u64, failed: u64) -> Delivery {
        Delivery {
            integration: "webhook".to_owned(),
            receiver: receiver.map(str::to_owned),
            requests,
            failed,
        }
    }

    #[test]
    fn requests_and_failures_are_put_together() {
        let text = "# TYPE alertmanager_notification_requests_total counter\n\
            alertmanager_notification_requests_total{integration=\"webhook\"} 4\n\
            alertmanager_notification_requests_failed_total{integration=\"webhook\"} 1\n\
            alertmanager_notifications_total{integration=\"webhook\"} 9\n";
        assert_eq!(read(text), Ok(vec![webhook(None, 4, 1)]));
    }

    #[test]
    fn receivers_are_told_apart_where_alertmanager_does() {
        let text = "alertmanager_notification_requests_total{integration=\"webhook\",receiver_name=\"pay\"} 1\n\
            alertmanager_notification_requests_total{integration=\"webhook\",receiver_name=\"shop\"} 2e0\n";
        let both = vec![webhook(Some("pay"), 1, 0), webhook(Some("shop"), 2, 0)];
        assert_eq!(read(text), Ok(both));
    }

    #[test]
    fn what_is_no_sample_is_refused_and_odd_numbers_are_none() {
        assert!(read("alertmanager_notification_requests_total{integration=").is_err());
        let odd = "alertmanager_notification_requests_total{integration=\"webhook\"} NaN\n\
            alertmanager_notification_requests_failed_total{integration=\"webhook\"} -3\n\
            alertmanager_notification_requests_failed_total 3\n";
        assert_eq!(read(odd), Ok(vec![webhook(None, 0, 0)]));
        assert_eq!(read("up 1\n"), Ok(Vec::new()));
    }
}
