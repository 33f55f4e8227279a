//! What a service needs next: which instances to start and stop, and which version the proxy shall treat as stable.
//! Pure: from what is desired and what exists.

use crate::local::desired::DesiredService;

/// An instance as far as planning cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its id.
    pub id: String,
    /// The version that it runs.
    pub version: String,
    /// It was started with today's command and environment of its version.
    pub current: bool,
    /// It takes traffic.
    pub ready: bool,
    /// It is being stopped.
    pub stopping: bool,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// A version for each new instance.
    pub start: Vec<String>,
    /// Ids.
    pub stop: Vec<String>,
    /// The version that the proxy shall treat as stable.
    pub routed: String,
}

/// Plans one service. `routed` is the version that the proxy treats as stable now; `stop_all` stops everything.
///
/// Traffic moves to a new stable version when that is at full strength, or the old one has nothing ready. Instances of a
/// version that is no longer desired stop at once, unless they still carry the traffic; then they stop after it has moved.
/// Instances with an outdated command or environment are replaced the same way: first the new, then the old.
pub fn plan(service: &DesiredService, existing: &[Existing], routed: Option<&str>, stop_all: bool) -> Plan {
    let stable = &service.stable_version;
    let full_strength = |version: &str, want: usize| {
        existing
            .iter()
            .filter(|e| e.version == version && e.current && e.ready && !e.stopping)
            .count()
            >= want
    };
    let stable_want = service.versions.get(stable).map_or(0, |spec| spec.replicas as usize);
    let carries = |version: &str| existing.iter().any(|e| e.version == version && e.ready && !e.stopping);
    let routed = match routed {
        Some(routed) if routed != stable && !full_strength(stable, stable_want) && carries(routed) => routed.to_owned(),
        _ => stable.clone(),
    };
    let down = stop_all || service.hold.is_some();
    let mut plan = Plan {
        routed,
        ..Plan::default()
    };
    for (version, spec) in &service.versions {
        let want = if down { 0 } else { spec.replicas as usize };
        let mut current: Vec<&Existing> = existing
            .iter()
            .filter(|e| e.version == *version && e.current && !e.stopping)
            .collect();
        plan.start
            .extend(std::iter::repeat_n(version.clone(), want.saturating_sub(current.len())));
        // The unready go first, then the youngest.
        current.sort_by_key(|e| (!e.ready, number(&e.id)));
        plan.stop.extend(current.iter().skip(want).map(|e| e.id.clone()));
        let outdated = existing
            .iter()
            .filter(|e| e.version == *version && !e.current && !e.stopping);
        if down || full_strength(version, want) {
            plan.stop.extend(outdated.map(|e| e.id.clone()));
        }
    }
    let undesired = existing
        .iter()
        .filter(|e| !e.stopping && !service.versions.contains_key(&e.version));
    plan.stop.extend(
        undesired
            .filter(|e| down || e.version != plan.routed)
            .map(|e| e.id.clone()),
    );
    plan
}

/// The number at the end of an id such as `orders-12`.
pub fn number(id: &str) -> u32 {
    id.rsplit('-')
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Health, Hold, Objectives, VersionSpec};

    fn service(stable: &str, versions: &[(&str, u32)]) -> DesiredService {
        let spec = |version: &str, replicas| VersionSpec {
            version: version.to_owned(),
            command: vec!["/bin/true".to_owned()],
            image: None,
            env: BTreeMap::new(),
            replicas,
        };
        DesiredService {
            stable_version: stable.to_owned(),
            versions: versions.iter().map(|(v, n)| ((*v).to_owned(), spec(v, *n))).collect(),
            cwd: "/".into(),
            data_dir: "/".into(),
            env: BTreeMap::new(),
            depends_on: Vec::new(),
            health: Health::default(),
            probe: None,
            objectives: Objectives::default(),
            drain_seconds: 1.0,
            start_seconds: 1.0,
            http_listen: None,
            grpc_listen: None,
            hold: None,
            revision: 1,
        }
    }

    fn instance(id: &str, version: &str, ready: bool) -> Existing {
        Existing {
            id: id.to_owned(),
            version: version.to_owned(),
            current: true,
            ready,
            stopping: false,
        }
    }

    #[test]
    fn a_new_stable_version_takes_over_before_the_old_one_stops() {
        let desired = service("b", &[("b", 2)]);
        let old = [instance("s-1", "a", true), instance("s-2", "a", true)];
        let first = plan(&desired, &old, Some("a"), false);
        assert_eq!(
            (first.start.len(), first.stop.len(), first.routed.as_str()),
            (2, 0, "a")
        );
        let mut half = old.to_vec();
        half.extend([instance("s-3", "b", true), instance("s-4", "b", false)]);
        let second = plan(&desired, &half, Some("a"), false);
        assert_eq!(
            (second.start.len(), second.stop.len(), second.routed.as_str()),
            (0, 0, "a")
        );
        half[3].ready = true;
        let third = plan(&desired, &half, Some("a"), false);
        assert_eq!(
            (third.stop, third.routed.as_str()),
            (vec!["s-1".to_owned(), "s-2".to_owned()], "b")
        );
    }

    #[test]
    fn a_removed_canary_stops_at_once() {
        let desired = service("a", &[("a", 1)]);
        let existing = [instance("s-1", "a", true), instance("s-2", "b", true)];
        assert_eq!(plan(&desired, &existing, Some("a"), false).stop, ["s-2"]);
    }

    #[test]
    fn fewer_replicas_stop_the_unready_first() {
        let desired = service("a", &[("a", 1)]);
        let existing = [
            instance("s-1", "a", false),
            instance("s-2", "a", true),
            instance("s-3", "a", true),
        ];
        assert_eq!(plan(&desired, &existing, Some("a"), false).stop, ["s-3", "s-1"]);
    }

    #[test]
    fn a_hold_stops_all_and_starts_none() {
        let mut desired = service("a", &[("a", 2)]);
        desired.hold = Some(Hold {
            holder: "r".to_owned(),
            reason: "restore".to_owned(),
            retry_after_seconds: 5,
        });
        let existing = [instance("s-1", "a", true), instance("s-2", "b", true)];
        let held = plan(&desired, &existing, Some("a"), false);
        assert_eq!((held.start.len(), held.stop.len()), (0, 2));
    }

    #[test]
    fn an_outdated_instance_is_replaced_before_it_stops() {
        let desired = service("a", &[("a", 1)]);
        let mut existing = vec![Existing {
            current: false,
            ..instance("s-1", "a", true)
        }];
        let first = plan(&desired, &existing, Some("a"), false);
        assert_eq!((first.start.len(), first.stop.len()), (1, 0));
        existing.push(instance("s-2", "a", true));
        assert_eq!(plan(&desired, &existing, Some("a"), false).stop, ["s-1"]);
    }
}
