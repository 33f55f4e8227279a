//! What an order costs: 200 requests a second at two instances on one file. A measurement, not a check of behaviour:
//! `cargo build --release -p orders -p payments -p notifications`, then
//! `SERVICES_BIN=…/release cargo test -p orders --test service load -- --ignored --nocapture`.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use crate::stack::{Stack, book};

/// CPU time so far of all our children of that name, from `/proc` (clock ticks are 10 ms).
fn cpu_ms(name: &str) -> u64 {
    let own = std::process::id().to_string();
    let mut ticks = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(text) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        let (head, fields) = text.rsplit_once(')').unwrap();
        let fields: Vec<_> = fields.split_whitespace().collect();
        if fields[1] == own && head.ends_with(&format!("({name}")) {
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks * 10
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of 15 s that wants a quiet machine and --release"]
async fn cost_of_an_order() {
    let rate: u32 = std::env::var("RATE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let total = rate * 15;
    let stack = Stack::start(2).await;
    let seed = stack.place(&book(1, 100, "here")).await;
    let names = ["orders", "payments", "notifications"];
    let before = names.map(cpu_ms);
    let start = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..total {
        let scheduled = start + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(scheduled).await;
        let instance = &stack.orders[(number / 2) as usize % 2].instance;
        let post = number % 2 == 0;
        let request = if post {
            stack
                .client
                .post(instance.url("/orders"))
                .json(&book(1, 100, "1 Main Street"))
        } else {
            stack.client.get(instance.url(&format!("/orders/{seed}")))
        };
        let request = request.bearer_auth(&stack.token);
        tasks.push(tokio::spawn(async move {
            let response = request.send().await.unwrap();
            let status = response.status();
            response.bytes().await.unwrap();
            (post, status, scheduled.elapsed())
        }));
    }
    let (mut posts, mut gets) = (Vec::new(), Vec::new());
    for task in tasks {
        let (post, status, took) = task.await.unwrap();
        assert_eq!(status, if post { StatusCode::CREATED } else { StatusCode::OK });
        if post { posts.push(took) } else { gets.push(took) }
    }
    let sent = start.elapsed();
    let events = 3 * (posts.len() + 1);
    while stack.notified("").await.len() < events {
        assert!(start.elapsed() < Duration::from_mins(2), "the sagas never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let drained = start.elapsed().saturating_sub(sent);
    for (name, times) in [("POST", &mut posts), ("GET", &mut gets)] {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{name}: {} requests, p50 {:?} p95 {:?} p99 {:?} max {:?}",
            times.len(),
            at(50),
            at(95),
            at(99),
            at(100)
        );
    }
    for (name, before) in names.iter().zip(before) {
        let used = cpu_ms(name) - before;
        println!(
            "{name}: {used} ms CPU, {:.2} ms an order",
            used as f64 / posts.len() as f64
        );
    }
    println!("all events took effect {drained:?} after the last answer");
}
