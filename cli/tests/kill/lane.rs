//! One service after another is drilled, or gets a canary; something of the run is killed; it is checked that nothing is
//! left of it. Several lanes work beside each other on services of their own.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::dice::{Dice, pass};
use crate::sandbox::eventually;
use crate::stage::{Role, Stage};
use crate::traffic::Traffic;

/// What kind of run is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Drill,
    Canary,
}

/// Which processes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    Watchdog,
    Terminal,
    WorkerAndWatchdog,
    All,
}

impl Victim {
    const EVERY: [Self; 5] = [
        Self::Worker,
        Self::Watchdog,
        Self::Terminal,
        Self::WorkerAndWatchdog,
        Self::All,
    ];

    fn roles(self) -> &'static [Role] {
        match self {
            Self::Worker => &[Role::Worker],
            Self::Watchdog => &[Role::Watchdog],
            Self::Terminal => &[],
            Self::WorkerAndWatchdog | Self::All => &[Role::Worker, Role::Watchdog],
        }
    }

    fn terminal(self) -> bool {
        matches!(self, Self::Terminal | Self::All)
    }
}

/// Kills one run after another.
pub struct Lane<'a> {
    pub stage: &'a Stage,
    pub kind: Kind,
    /// Taken in turn, so that an instance that was killed has time to count as steady again.
    pub services: Vec<String>,
    pub dice: Dice,
    /// How many kills came too late.
    pub ended: u64,
    /// Runs that had no worker yet; nobody knows that they are dead before half a minute has passed.
    pub unclaimed: Vec<String>,
    round: u64,
}

impl<'a> Lane<'a> {
    pub fn new(stage: &'a Stage, kind: Kind, services: Vec<String>, dice: Dice) -> Self {
        Self {
            stage,
            kind,
            services,
            dice,
            ended: 0,
            unclaimed: Vec::new(),
            round: 0,
        }
    }

    /// So many kills, then one run that nobody kills.
    pub fn work(&mut self, kills: u64) {
        let traffic: Vec<Traffic> = self
            .services
            .iter()
            .map(|service| Traffic::start(self.stage.port(service), "60/s"))
            .collect();
        for _ in 0..kills {
            let index = (self.round % self.services.len() as u64) as usize;
            let service = self.services[index].clone();
            self.kill_one(&service, &traffic[index]);
            self.round += 1;
        }
        let service = self.services[0].clone();
        let code = self.start(&service).wait().expect("our own child").code();
        assert!(matches!(code, Some(0 | 9)), "a run after all kills: {code:?}");
        for traffic in traffic {
            assert!(traffic.answered() > 0, "there was no traffic");
            assert!(traffic.stop().identity_holds());
        }
    }

    fn start(&self, service: &str) -> Child {
        let version = format!("v{}", self.round);
        let drill = ["drill", self.drill(), service, "--for", "500ms"];
        let canary = [
            "deploy",
            "canary",
            service,
            "--version",
            &version,
            "--steps",
            "20:700ms,50:700ms,100",
            "--interval",
            "200ms",
            "--bake",
            "800ms",
        ];
        let words: &[&str] = match self.kind {
            Kind::Drill => &drill,
            Kind::Canary => &canary,
        };
        self.stage
            .sandbox
            .command(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("opsctl starts")
    }

    /// Each kind of drill in turn: one that has no undo, one whose undo changes what is meant to run, one that ends by
    /// itself where it acts.
    fn drill(&self) -> &'static str {
        ["pod-kill", "service-down", "latency"][(self.round % 3) as usize]
    }

    /// The instant of the kill: the start, the time before and around the change, the end.
    fn instant(&mut self) -> Duration {
        let spans: &[(u64, u64)] = match self.kind {
            // The steady state is watched for five seconds before the kill.
            Kind::Drill => &[(0, 600), (600, 5000), (5000, 6500), (5000, 6500)],
            Kind::Canary => &[(0, 600), (600, 3500), (600, 3500)],
        };
        let (from, to) = self.dice.one(spans);
        self.dice
            .between(Duration::from_millis(from), Duration::from_millis(to))
    }

    #[expect(clippy::zombie_processes, reason = "`ended` waits for whom it does not kill")]
    fn kill_one(&mut self, service: &str, traffic: &Traffic) {
        let victim = self.dice.one(&Victim::EVERY);
        let instant = self.instant();
        let told = format!(
            "{:?} {} {} of {service}: {victim:?} after {} ms",
            self.kind,
            self.drill(),
            self.round,
            instant.as_millis()
        );
        let before = self.stage.runs(service);
        let stable = self.stage.stable(service);
        traffic.failures();
        let mut terminal = self.start(service);
        pass(instant);
        let run = self.stage.runs(service).difference(&before).next().cloned();
        let mut killed = run.as_deref().map_or(0, |run| self.stage.kill(run, victim.roles()));
        let terminal_killed = victim.terminal() || run.is_none();
        if terminal_killed {
            killed += usize::from(terminal.try_wait().expect("our own child").is_none());
            let _ = terminal.kill();
            let _ = terminal.wait();
        }
        self.ended += u64::from(killed == 0);
        // It may have been stored in the instant of the kill.
        let run = run.or_else(|| self.stage.runs(service).difference(&before).next().cloned());
        let (stage, kind) = (self.stage, self.kind);
        if let Some(run) = &run {
            self.settle(run, service, &told);
        }
        if !terminal_killed {
            let code = ended(&mut terminal, &told);
            assert!(
                matches!(code, Some(0 | 1 | 4 | 9)),
                "{told}: the terminal ended with {code:?}"
            );
        }
        eventually(&format!("{told}: the stable state"), || stage.settled(service));
        eventually(&format!("{told}: the end of every fault"), || {
            stage.faults(service) == 0
        });
        if let Some(run) = &run {
            eventually(&format!("{told}: the end of its processes"), || {
                stage.processes(run).is_empty()
            });
            if !self.unclaimed.contains(run) {
                let record = stage.record(run).expect("its record");
                let outcome = record["outcome"].as_str();
                // The terminal may have outlived a worker that never took the run up, and closed it.
                let never_began = outcome == Some("error") && record["worker"].is_null();
                assert!(
                    never_began || matches!(outcome, Some("passed" | "failed" | "inconclusive" | "aborted" | "lost")),
                    "{told}: {record:#}"
                );
                let now = stage.stable(service);
                let new = format!("v{}", self.round);
                let promoted = kind == Kind::Canary && record["outcome"] == "passed";
                let expected = if promoted { &new } else { &stable };
                assert!(
                    now == *expected || (now == new && record["outcome"] == "lost"),
                    "{told}: {now} is stable"
                );
            }
        }
        let failures = traffic.failures();
        let allowed = match (kind, self.drill()) {
            (Kind::Canary, _) => 0,
            // Nobody answers while it is down.
            (Kind::Drill, "service-down") => usize::MAX,
            // One instance, with what it was answering: a busy machine leaves a quarter of a second's requests open.
            (Kind::Drill, _) => 10,
        };
        assert!(failures.len() <= allowed, "{told}: {failures:?}");
    }

    /// Brings the run to its end, as a user would: by waiting, by attaching, by `recover`.
    fn settle(&mut self, run: &str, service: &str, told: &str) {
        let stage = self.stage;
        let has = |role: Role| stage.processes(run).iter().any(|(found, _)| *found == role);
        eventually(&format!("{told}: a worker, or its end"), || {
            let claimed = stage.record(run).is_some_and(|record| !record["worker"].is_null());
            claimed || !has(Role::Worker)
        });
        if stage.record(run).is_some_and(|record| record["worker"].is_null()) && !stage.closed(run) {
            self.unclaimed.push(run.to_owned());
            return;
        }
        if has(Role::Worker) {
            eventually(&format!("{told}: the end of the run"), || {
                stage.closed(run) || !has(Role::Worker)
            });
        }
        if has(Role::Watchdog) && !stage.closed(run) {
            // Whatever is dangerous goes by itself.
            eventually(&format!("{told}: the watchdog"), || {
                stage.closed(run) || stage.service(service)["canary"].is_null()
            });
            if self.kind == Kind::Drill {
                eventually(&format!("{told}: the watchdog closes it"), || {
                    stage.closed(run) || !has(Role::Watchdog)
                });
            }
        }
        if stage.closed(run) {
            return;
        }
        if self.kind == Kind::Canary && self.dice.next().is_multiple_of(3) {
            let attached = stage.sandbox.run(&["run", "attach", run]);
            // A watchdog that the worker started anew just before its own end may have been faster.
            let undone = attached.code == 1 && attached.stderr.contains("lost, undone") && stage.closed(run);
            assert!(
                undone || matches!(attached.code, 0 | 4 | 9),
                "{told}: attach: {attached:?}"
            );
        } else {
            stage.sandbox.run(&["recover", run]).ended(0);
        }
        // At once, or by that watchdog, which `recover` leaves to its work.
        eventually(&format!("{told}: the end of the run"), || {
            stage.closed(run) || !has(Role::Watchdog)
        });
        assert!(stage.closed(run), "{told}: it is not over");
    }
}

/// Waits for a child with a deadline.
#[expect(clippy::disallowed_methods, reason = "a deadline for a real process")]
fn ended(child: &mut Child, told: &str) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{told}: the terminal does not end");
        }
        pass(Duration::from_millis(20));
    }
}
