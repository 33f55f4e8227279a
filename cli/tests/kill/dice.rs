//! Seeded chance, and how often it is asked.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

/// Splitmix64: small, seeded, good enough to choose instants.
pub struct Dice(u64);

impl Dice {
    /// Seeded by `OPSCTL_SEED`, or by the clock; prints the seed and the count.
    #[expect(clippy::disallowed_methods, reason = "the seed of this run")]
    #[expect(clippy::print_stdout, reason = "with it a failure can be had again")]
    pub fn new(test: &str) -> Self {
        let clock = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64)
        };
        let seed = number("OPSCTL_SEED").unwrap_or_else(clock);
        println!("{test}: OPSCTL_SEED={seed} OPSCTL_KILLS={}", kills());
        Self(seed)
    }

    /// Another one, for a thread of its own.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of several.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }

    /// A random instant between two.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + to
            .saturating_sub(from)
            .mul_f64((self.next() % 10_000) as f64 / 10_000.0)
    }
}

/// Says how a run of kills went.
#[expect(clippy::print_stdout, reason = "figures for whoever soaks")]
pub fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

/// How many kills each kind gets.
pub fn kills() -> u64 {
    number("OPSCTL_KILLS").unwrap_or(12)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lets time pass.
pub fn pass(time: Duration) {
    // A channel that nobody sends on is a timer.
    let (_keep, timer) = mpsc::channel::<()>();
    let _ = timer.recv_timeout(time);
}

/// Lets time pass, and kills the child; true when it had ended by itself.
pub fn kill_after(child: &mut Child, time: Duration) -> bool {
    pass(time);
    let ended = child.try_wait().expect("our own child").is_some();
    let _ = child.kill();
    let _ = child.wait();
    ended
}
