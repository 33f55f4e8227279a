//! A light brake on guessing one account's password: so many failures in a while, then a pause. In memory, per instance;
//! it says nothing about whether the account exists, since it counts unknown ones alike. Pure: it is told the time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Attempts that may fail before the pause. An attempt counts from its beginning, so that many at once are many.
pub const FREE: u32 = 10;
/// How long failures are remembered, and how long the pause is at most.
pub const WINDOW: Duration = Duration::from_mins(1);
/// Accounts that are remembered. Beyond, new ones are let through: memory is bounded, and so is the scrypt work.
const ACCOUNTS: usize = 10_000;

/// Failures by account.
#[derive(Debug, Default)]
pub struct Throttle {
    accounts: HashMap<String, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Throttle {
    /// Begins an attempt: counted as failed until [`Throttle::succeeded`]. Errors: how long to wait.
    pub fn begin(&mut self, account: &str, now: Instant) -> Result<(), Duration> {
        if let Some(failures) = self.accounts.get_mut(account) {
            let age = now.saturating_duration_since(failures.since);
            if age >= WINDOW {
                *failures = Failures { since: now, count: 1 };
            } else if failures.count >= FREE {
                return Err(WINDOW.saturating_sub(age));
            } else {
                failures.count += 1;
            }
            return Ok(());
        }
        if self.accounts.len() >= ACCOUNTS {
            self.accounts
                .retain(|_, failures| now.saturating_duration_since(failures.since) < WINDOW);
        }
        if self.accounts.len() < ACCOUNTS {
            self.accounts
                .insert(account.to_owned(), Failures { since: now, count: 1 });
        }
        Ok(())
    }

    /// The password was right: everything is forgiven.
    pub fn succeeded(&mut self, account: &str) {
        self.accounts.remove(account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_follows_too_many_failures_and_ends() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..FREE {
            throttle.begin("a", start).unwrap();
        }
        assert_eq!(
            throttle.begin("a", start + Duration::from_secs(20)),
            Err(Duration::from_secs(40))
        );
        throttle.begin("b", start).expect("others are not concerned");
        throttle.begin("a", start + WINDOW).expect("the pause is over");
        throttle.begin("a", start + WINDOW).expect("with all attempts ahead");
    }

    #[test]
    fn success_forgives() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 * FREE {
            throttle.begin("a", now).unwrap();
            throttle.succeeded("a");
        }
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..2 * ACCOUNTS {
            throttle.begin(&n.to_string(), now).unwrap();
        }
        assert_eq!(throttle.accounts.len(), ACCOUNTS);
        throttle.begin("late", now + WINDOW).unwrap();
        assert_eq!(throttle.accounts.len(), 1);
    }
}
