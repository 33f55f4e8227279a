//! The acts, in the order in which they are played. Each runs one real command under the customers' traffic, and says
//! what it should have done; nothing here is a figure of its own making.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::act::Act;
use super::command::{Opsctl, Ran};
use super::customer::{Customer, Reconciliation};
use super::stage::{AVAILABILITY, BAD, BAD_FAULT, GOOD, SERVICE};
use super::traffic::Traffic;
use crate::context::Signals;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::{bytes, seconds};

/// How long the shop is watched before anything happens to it.
const CALM: Duration = Duration::from_secs(5);
/// How long orders go on between the snapshot and the disaster.
const BEFORE_DISASTER: Duration = Duration::from_secs(3);
/// So many answers in a row without an error mean that customers are served again.
const SERVED: usize = 100;
/// How long that may take after the restore.
const SERVED_WITHIN: Duration = Duration::from_secs(15);
/// How long the shop may take to give back what was charged for lost orders.
const RECONCILED_WITHIN: Duration = Duration::from_secs(30);
/// How long the service is watched after an instance was killed.
const WATCHED: &str = "10s";
/// The share of errors that the tour's objective allows.
const ERRORS_ALLOWED: f64 = 0.01;
/// The schedule of both canaries.
const CANARY: [&str; 6] = ["--steps", "10:5s,50:15s,100", "--bake", "5s", "--interval", "1s"];
/// The store that is saved, destroyed and restored.
const STORE: &str = "orders-db";
const DATABASE: &str = ".opsctl/data/orders/orders.db";

/// Everything that is on the stage while the acts are played.
pub(super) struct Stage<'a> {
    /// Runs the commands.
    pub(super) opsctl: &'a Opsctl,
    /// The customer who ordered everything.
    pub(super) customer: &'a Customer,
    /// The customers' traffic.
    pub(super) traffic: &'a Traffic,
    /// Asked to stop?
    pub(super) signals: &'a mut Signals,
    /// What earlier acts left for later ones.
    pub(super) memory: Memory,
}

/// The acts, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Orders,
    Backup,
    Drill,
    Disaster,
    GoodCanary,
    BadCanary,
    Reckoning,
}

impl Part {
    pub(super) const ALL: [Self; 7] = [
        Self::Orders,
        Self::Backup,
        Self::Drill,
        Self::Disaster,
        Self::GoodCanary,
        Self::BadCanary,
        Self::Reckoning,
    ];

    /// What is going on, for the progress line.
    pub(super) const fn phase(self) -> &'static str {
        match self {
            Self::Orders => "customers order",
            Self::Backup => "a backup while they order",
            Self::Drill => "an instance is killed",
            Self::Disaster => "the database is destroyed and restored",
            Self::GoodCanary => "a good version ships",
            Self::BadCanary => "a bad version ships",
            Self::Reckoning => "is everything still there",
        }
    }
}

/// What later acts need to know of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When the backup began: what was promised before must survive the disaster.
    backup_began: Duration,
    /// When the store was restored and customers were served again: nothing may be lost after this.
    restored: Duration,
}

impl Stage<'_> {
    /// Plays one act.
    ///
    /// # Errors
    /// When the tour cannot go on, or was asked to stop. An act that did something else than it should is no error: it
    /// says so itself.
    pub(super) async fn play(&mut self, part: Part) -> Result<Act, Failure> {
        match part {
            Part::Orders => self.calm().await,
            Part::Backup => self.backup().await,
            Part::Drill => self.drill().await,
            Part::Disaster => self.disaster().await,
            Part::GoodCanary => self.good_canary().await,
            Part::BadCanary => self.bad_canary().await,
            Part::Reckoning => self.reckoning().await,
        }
    }

    /// Watches the shop for a while.
    async fn calm(&mut self) -> Result<Act, Failure> {
        let mut act = Act::new("orders", None);
        let from = self.traffic.ledger().now();
        self.wait(CALM).await?;
        let promised = self.traffic.ledger().accepted(from, self.traffic.ledger().now()).len();
        act.measure("orders promised", promised.to_string());
        if promised == 0 {
            act.fail("no order was accepted");
        }
        Ok(self.close_served(act, from))
    }

    /// Takes a backup while customers order.
    async fn backup(&mut self) -> Result<Act, Failure> {
        self.memory.backup_began = self.traffic.ledger().now();
        let ran = self.run(&["backup", STORE]).await?;
        let mut act = Act::new("backup", Some(ran.typed.clone()));
        expect(&mut act, &ran, Exit::Done);
        if let Some(store) = ran.document.pointer("/datastores/0") {
            let number = |name: &str| store.get(name).and_then(Value::as_f64);
            if let Some(id) = store.get("snapshot").and_then(Value::as_str) {
                act.measure("snapshot", id.chars().take(8).collect::<String>());
            }
            act.measure("read", bytes(number("total_bytes").unwrap_or_default() as u64));
            act.measure("stored", bytes(number("stored_bytes").unwrap_or_default() as u64));
            act.measure("took", seconds(number("elapsed_seconds").unwrap_or_default()));
        }
        Ok(self.close_served(act, self.memory.backup_began))
    }

    /// Kills an instance as a drill.
    async fn drill(&mut self) -> Result<Act, Failure> {
        let from = self.traffic.ledger().now();
        let ran = self.run(&["drill", "pod-kill", SERVICE, "--for", WATCHED]).await?;
        let mut act = Act::new("pod-kill", Some(ran.typed.clone()));
        expect(&mut act, &ran, Exit::Done);
        if let Some(verdict) = ran.text("/verdict") {
            act.measure("verdict", verdict);
        }
        if let Some(recovery) = ran.number("/recovery/time_to_recovery_seconds") {
            act.measure("time to recovery", seconds(recovery));
        }
        Ok(self.close(act, from))
    }

    /// Destroys the orders database and restores it, and counts what customers had been promised and is gone.
    async fn disaster(&mut self) -> Result<Act, Failure> {
        let from = self.traffic.ledger().now();
        self.wait(BEFORE_DISASTER).await?;
        let disaster = self.traffic.ledger().now();
        self.destroy()?;
        let ran = self.run(&["restore", STORE, "--replace", "--yes"]).await?;
        let mut act = Act::new("disaster, restore", Some(ran.typed.clone()));
        expect(&mut act, &ran, Exit::Done);
        act.measure("restore took", seconds(ran.took.as_secs_f64()));

        let served = self.served_again(disaster).await?;
        match served {
            Some(served) => act.measure(
                "customers without service",
                seconds(served.saturating_sub(disaster).as_secs_f64()),
            ),
            None => act.fail("customers were not served again after the restore"),
        }
        self.memory.restored = self.traffic.ledger().now();
        if act.failed.is_none() {
            self.count_losses(&mut act).await?;
        }
        Ok(self.close(act, from))
    }

    async fn count_losses(&mut self, act: &mut Act) -> Result<(), Failure> {
        let known = self.customer.known_orders().await?;
        let missing = |from, to| -> HashSet<String> {
            self.traffic
                .ledger()
                .accepted(from, to)
                .difference(&known)
                .cloned()
                .collect()
        };
        let kept = missing(Duration::ZERO, self.memory.backup_began).len();
        let lost = missing(self.memory.backup_began, self.memory.restored).len();
        // Orders are promised for a moment after the file is gone too: the service still has it open.
        let (from, to) = (self.memory.backup_began, self.memory.restored);
        let promised = self.traffic.ledger().accepted(from, to).len();
        act.measure("promised since the snapshot", promised.to_string());
        act.measure("orders lost", lost.to_string());
        if kept > 0 {
            act.fail(format!("{kept} orders that were promised before the snapshot are gone"));
        }
        let found = self.reconciliation().await?;
        act.measure(
            "charges without order",
            found.map_or_else(|| "not looked for".to_owned(), |found| found.missing_orders.to_string()),
        );
        match found {
            Some(found) if found.refunded >= found.missing_orders => {
                act.measure("of these refunded", found.refunded.to_string());
            }
            Some(found) => act.fail(format!(
                "of {} charges without an order only {} were refunded",
                found.missing_orders, found.refunded
            )),
            None => act.fail("the shop did not compare charges with orders after the restore"),
        }
        Ok(())
    }

    /// What the shop found and gave back, once it is through with it.
    async fn reconciliation(&mut self) -> Result<Option<Reconciliation>, Failure> {
        let deadline = Instant::now() + RECONCILED_WITHIN;
        loop {
            let found = self.customer.reconciliation().await?;
            let through = found.is_some_and(|found| found.refunded >= found.missing_orders);
            if through || Instant::now() >= deadline {
                return Ok(found);
            }
            self.wait(Duration::from_millis(200)).await?;
        }
    }

    /// Ships a version that is as good as the one that runs.
    async fn good_canary(&mut self) -> Result<Act, Failure> {
        let (mut act, ran, from) = self.canary("good canary", GOOD).await?;
        expect(&mut act, &ran, Exit::Done);
        if ran.text("/status") != Some("promoted") {
            act.fail("the good canary was not promoted");
        }
        Ok(self.close_served(act, from))
    }

    /// Ships a version that fails a part of its requests.
    async fn bad_canary(&mut self) -> Result<Act, Failure> {
        let (mut act, ran, from) = self.canary("bad canary", BAD).await?;
        act.measure("its fault", BAD_FAULT);
        expect(&mut act, &ran, Exit::No);
        if ran.text("/status") != Some("rolled_back") {
            act.fail("the bad canary was not rolled back");
        }
        Ok(self.close(act, from))
    }

    async fn canary(&mut self, name: &'static str, version: &str) -> Result<(Act, Ran, Duration), Failure> {
        let from = self.traffic.ledger().now();
        let mut arguments = vec!["deploy", "canary", SERVICE, "--version", version];
        arguments.extend(CANARY);
        let ran = self.run(&arguments).await?;
        let mut act = Act::new(name, Some(ran.typed.clone()));
        if let Some(status) = ran.text("/status") {
            act.measure("outcome", status.replace('_', " "));
        }
        if let Some(errors) = ran.document.pointer("/evidence/metrics/0") {
            let count = |arm: &str, what: &str| {
                errors
                    .pointer(&format!("/{arm}/{what}"))
                    .and_then(Value::as_u64)
                    .unwrap_or_default()
            };
            act.measure(
                "canary",
                format!("{} errors of {}", count("canary", "bad"), count("canary", "requests")),
            );
            act.measure(
                "stable",
                format!("{} errors of {}", count("stable", "bad"), count("stable", "requests")),
            );
            if let Some(ln_e) = errors.get("worse_ln_e").and_then(Value::as_f64) {
                act.measure(
                    "evidence that it is worse",
                    format!("e = {:.1e} (fails at 100)", ln_e.exp()),
                );
            }
            if let Some(bound) = errors.get("upper_bound_ratio").and_then(Value::as_f64) {
                act.measure("its errors are at most", format!("{:.2} %", bound * 100.0));
            }
        }
        act.document = ran.document.clone();
        Ok((act, ran, from))
    }

    /// Nothing that was promised since the restore is gone.
    async fn reckoning(&mut self) -> Result<Act, Failure> {
        let mut act = Act::new("reckoning", None);
        let from = self.traffic.ledger().now();
        let promised = self.traffic.ledger().accepted(self.memory.restored, from);
        let known = self.customer.known_orders().await?;
        let lost = promised.difference(&known).count();
        act.measure("promised since the restore", promised.len().to_string());
        act.measure("orders lost", lost.to_string());
        if lost > 0 {
            act.fail(format!("{lost} orders that were promised after the restore are gone"));
        }
        Ok(self.close(act, from))
    }

    /// The disaster: every byte of the database is overwritten, as a failing disk or a wrong `dd` does it.
    fn destroy(&self) -> Result<(), Failure> {
        let file = self.opsctl.folder.join(DATABASE);
        let failed = |error: std::io::Error| Failure::io(format!("could not overwrite `{}`", file.display()), &error);
        let length = std::fs::metadata(&file).map_err(failed)?.len();
        let mut database = OpenOptions::new().write(true).open(&file).map_err(failed)?;
        let garbage = vec![0xa5; 1 << 16];
        let mut left = length as usize;
        while left > 0 {
            let part = left.min(garbage.len());
            database.write_all(&garbage[..part]).map_err(failed)?;
            left -= part;
        }
        Ok(())
    }

    async fn served_again(&mut self, since: Duration) -> Result<Option<Duration>, Failure> {
        let deadline = Instant::now() + SERVED_WITHIN;
        loop {
            let served = self.traffic.ledger().served_again(since, SERVED);
            if served.is_some() || Instant::now() >= deadline {
                return Ok(served);
            }
            self.wait(Duration::from_millis(100)).await?;
        }
    }

    async fn run(&mut self, arguments: &[&str]) -> Result<Ran, Failure> {
        self.opsctl.run(arguments, self.signals.next()).await
    }

    async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            stop = self.signals.next() => Err(Failure::new(stop.exit(), "interrupted", "interrupted")),
        }
    }

    fn close(&self, mut act: Act, from: Duration) -> Act {
        let to = self.traffic.ledger().now();
        act.during(from, to, self.traffic.ledger().tally(from, to));
        act
    }

    /// As [`Self::close`], for an act in which customers must be served as the objective says.
    fn close_served(&self, act: Act, from: Duration) -> Act {
        let mut act = self.close(act, from);
        if act.errors as f64 > act.requests as f64 * ERRORS_ALLOWED {
            act.fail(format!(
                "{} of {} requests failed; the objective is {AVAILABILITY}",
                act.errors, act.requests
            ));
        }
        act
    }
}

fn expect(act: &mut Act, ran: &Ran, exit: Exit) {
    if !ran.ended(exit) {
        let failure = ran.failure();
        let why = failure
            .causes
            .first()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        act.fail(format!("{}{why}", failure.message));
    }
}
