//! Whether a policy that keeps a service from its database is enforced, as the sessions at the server tell. The API accepts
//! a NetworkPolicy on a cluster where nobody enforces any, and nobody says what becomes of connections that were open. So
//! the sessions are ended at the server, again and again: who comes back is not kept away. It ends none itself.

use std::time::Duration;

use tokio::time::Instant;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a policy may take until it is enforced everywhere: who comes back in that time is sent away once more.
const SETTLES: Duration = Duration::from_secs(5);
/// How long nobody may have come back.
const QUIET: Duration = Duration::from_secs(10);

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Enforced {
    since: Instant,
    looked: Option<Instant>,
    /// Sessions when the first look ended them.
    before: u64,
    /// Sessions are gone since.
    quiet: Instant,
    /// When something suffered from that first, seconds of the course.
    noticed: Option<f64>,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing yet.
    Waiting,
    /// It keeps the service away, and that was noticed.
    Enforced,
    /// It does not, or that cannot be told: why.
    Not(String),
}

impl Enforced {
    /// The policy was made just now.
    pub(super) fn since(now: Instant) -> Self {
        Self {
            since: now,
            looked: None,
            before: 0,
            quiet: now,
            noticed: None,
        }
    }

    /// Something suffers, at `seconds` of the course. What suffers right after sessions were ended does so from that, and
    /// not from the policy.
    pub(super) fn suffers(&mut self, now: Instant, seconds: f64) {
        if self.looked.is_some() && now - self.quiet >= EVERY {
            self.noticed.get_or_insert(seconds);
        }
    }

    /// When something first suffered.
    pub(super) fn noticed(&self) -> Option<f64> {
        self.noticed
    }

    /// Whether it is time to end the sessions that there are.
    pub(super) fn due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now - looked >= EVERY)
    }

    /// Sessions that were ended before anybody could come back.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    /// So many sessions were there, and were ended.
    pub(super) fn look(&mut self, now: Instant, sessions: u64) -> Said {
        let first = self.looked.replace(now).is_none();
        if first {
            self.before = sessions;
        }
        if self.before == 0 {
            let why = "it had no session at the database that could be ended: whether the NetworkPolicy is enforced cannot be told";
            return Said::Not(why.to_owned());
        }
        if sessions > 0 {
            self.quiet = now;
            self.noticed = None;
            if !first && now - self.since >= SETTLES {
                return Said::Not(format!(
                    "the NetworkPolicy is not enforced: {} after it was made, {sessions} {} at the database again. The \
                     cluster accepts NetworkPolicies, but its network plugin does not enforce them, or not for these \
                     pods; cut the way off at the Service instead (mode `reset`)",
                    crate::figures::duration((now - self.since).as_secs_f64()),
                    if sessions == 1 { "session was" } else { "sessions were" },
                ));
            }
            return Said::Waiting;
        }
        if self.noticed.is_some() && now - self.quiet >= QUIET {
            return Said::Enforced;
        }
        Said::Waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said after looks at these seconds: sessions, and whether something suffers.
    fn said(looks: &[(u64, u64, bool)]) -> Said {
        let start = Instant::now();
        let mut seen = Enforced::since(start);
        let mut last = Said::Waiting;
        for (at, sessions, suffers) in looks {
            assert_eq!(last, Said::Waiting, "before {at} s");
            let now = start + Duration::from_secs(*at);
            if *suffers {
                seen.suffers(now, *at as f64);
            }
            last = seen.look(now, *sessions);
        }
        last
    }

    #[test]
    fn whoever_comes_back_once_it_should_be_enforced_shows_that_it_is_not() {
        let Said::Not(why) = said(&[(0, 4, false), (1, 3, true), (2, 3, false), (4, 0, false), (5, 2, false)]) else {
            panic!("two came back");
        };
        assert!(why.contains("not enforced") && why.contains("2 sessions were"), "{why}");
        // What a late first look finds has not come back.
        assert_eq!(said(&[(7, 4, false)]), Said::Waiting);
    }

    #[test]
    fn it_is_enforced_when_nobody_comes_back_and_something_suffers() {
        let so_far = [(0, 4, false), (2, 3, false), (11, 0, true)];
        assert_eq!(said(&so_far), Said::Waiting);
        assert_eq!(said(&[&so_far[..], &[(12, 0, false)]].concat()), Said::Enforced);
    }

    #[test]
    fn silence_alone_proves_nothing() {
        assert_eq!(said(&[(0, 4, false), (60, 0, false)]), Said::Waiting);
        assert!(matches!(said(&[(0, 0, false)]), Said::Not(why) if why.contains("no session")));
        // That sessions were ended hurts by itself, for a moment.
        assert_eq!(said(&[(0, 4, true), (1, 2, true), (20, 0, false)]), Said::Waiting);
    }
}
