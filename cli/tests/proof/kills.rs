//! SIGKILL at random instants of drills and canaries on the cluster, of the terminal, of whoever works for it on this
//! machine, and of the judge in the cluster. The state returns by itself or by `recover`.
//!
//! `OPSCTL_KILLS` says how often in all (12 by default), `OPSCTL_SEED` repeats a run; both are printed.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::dice::{Dice, kills};
use crate::shop::{Shop, Terminal, ended};

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// `opsctl` in the terminal.
    Client,
    /// Every process of `opsctl` on this machine that works for the folder: terminal, worker, watchdog.
    Everybody,
    /// The pod with judge and watchdog, and the terminal.
    Judge,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Drill,
    Canary,
}

#[tokio::test]
async fn whoever_is_killed_the_state_returns() {
    let test = "whoever_is_killed_the_state_returns";
    let Some(shop) = Shop::open(test, &["identity", "notifications", "payments"]).await else {
        return;
    };
    let mut dice = Dice::new(test);
    let lanes = [
        ("identity", Kind::Canary),
        ("payments", Kind::Canary),
        // One is enough: each watches those that depend on it, too.
        ("notifications", Kind::Drill),
    ];
    let reads = shop.reads("60/s");
    let share = |lane: u64| kills() / 3 + u64::from(lane < kills() % 3);
    let mut rounds = lanes.iter().zip(0..).map(|((service, kind), lane)| {
        let dice = dice.split();
        round_after_round(&shop, service, *kind, share(lane), dice)
    });
    let [first, second, third] = std::array::from_fn(|_| rounds.next().expect("three lanes"));
    tokio::join!(first, second, third);
    shop.recover().await;
    assert_eq!(
        reads.failures(),
        Vec::<String>::new(),
        "no canary and no kill fails a request of identity"
    );
    println!("kills: {} reads answered, none failed", reads.answered());
}

async fn round_after_round(shop: &Shop, service: &str, kind: Kind, rounds: u64, mut dice: Dice) {
    let before = shop.state(service).await;
    // A folder of its own, so that `Everybody` is nobody else.
    let folder = crate::sandbox::Sandbox::new();
    let catalogue = std::fs::read_to_string(shop.sandbox.path("opsctl.toml")).expect("the catalogue");
    folder.write("opsctl.toml", &catalogue);
    let image = Shop::image(service, "v1-next");
    for round in 0..rounds {
        let (words, victims): (Vec<&str>, &[Victim]) = match kind {
            Kind::Canary => (
                vec![
                    "deploy",
                    "canary",
                    service,
                    "--image",
                    &image,
                    "--steps",
                    "30:5s,60:10m",
                    "--interval",
                    "1s",
                    "--on-inconclusive",
                    "rollback",
                ],
                &[Victim::Client, Victim::Judge],
            ),
            Kind::Drill => (
                vec!["drill", "service-down", service, "--for", "6s", "--yes"],
                &[Victim::Client, Victim::Everybody],
            ),
        };
        let victim = dice.one(victims);
        let instant = dice.between(Duration::ZERO, Duration::from_secs(14));
        let client = Terminal::start(folder.command(&words));
        tokio::time::sleep(instant).await;
        let over = client.kill();
        println!(
            "{service}, round {round}: {victim:?} after {instant:?}{}",
            if over { ", it was over" } else { "" }
        );
        match victim {
            Victim::Client => {}
            Victim::Everybody => everybody(&folder.path(".").display().to_string()),
            Victim::Judge => {
                let selector = format!("opsctl.dev/service={service},app.kubernetes.io/managed-by=opsctl");
                let words = [
                    "delete",
                    "pod",
                    "--namespace=shop",
                    "--selector",
                    &selector,
                    "--grace-period=0",
                    "--force",
                    "--ignore-not-found",
                ];
                shop.kubectl(&words).await;
            }
        }
        returns(shop, &folder, service, kind, victim, &before).await;
    }
}

/// Waits until the state is back: at once where it is asked for, else by itself.
async fn returns(
    shop: &Shop,
    folder: &crate::sandbox::Sandbox,
    service: &str,
    kind: Kind,
    victim: Victim,
    before: &BTreeMap<String, serde_json::Value>,
) {
    let abort = ["deploy", "abort", service];
    shop.until("an end of it that is asked for", async || {
        let ran = match (kind, victim) {
            // Its judge goes on until it is told.
            (Kind::Canary, _) => ended(folder.command(&abort)).await,
            (Kind::Drill, Victim::Everybody) => ended(folder.command(&["recover"])).await,
            // Worker and watchdog finish it.
            (Kind::Drill, _) => return true,
        };
        // Whoever works still has its lock for the rest of its lease.
        ran.code == 0
    })
    .await;
    shop.settles(service, before).await;
}

/// Kills every process of `opsctl` that works for a folder.
pub fn everybody(folder: &str) {
    let folder = folder.trim_end_matches("/.");
    let found = Command::new("pkill").args(["-KILL", "-f", folder]).status();
    found.expect("pkill");
}
