//! `kill -9` of random services under load: nothing that was answered is lost, every order is charged exactly once or
//! refunded or declined, every event takes effect exactly once. The seed is printed; `OPSCTL_SEED` repeats it, `OPSCTL_KILLS`
//! says how many.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chassis::trial::{kills, seed, until_async};
use peers::Server;
use peers::servers::Postgres;
use proto::payments::v1::ChargeStatus;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::stack::{Stack, book};

/// One customer: places orders at one of the instances, repeats under the same key what failed, cancels some.
async fn shop(
    client: reqwest::Client,
    urls: Vec<String>,
    token: String,
    name: usize,
    mut random: StdRng,
    placed: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let order = match random.random_range(0..10) {
            0 => book(1, 1_000_001, "here"),
            1 => book(1, 100, "nowhere"),
            _ => book(1, 100, "here"),
        };
        let key = format!("shop-{name}-{number}");
        let first = random.random_range(0..urls.len());
        let tries = AtomicUsize::new(first);
        let id = until_async("an instance takes the order", || async {
            if stop.load(Ordering::SeqCst) {
                return Some(None);
            }
            let url = &urls[tries.fetch_add(1, Ordering::Relaxed) % urls.len()];
            let request = client
                .post(url)
                .bearer_auth(&token)
                .header("idempotency-key", &key)
                .json(&order);
            let response = request.send().await.ok()?;
            match response.status() {
                // The connection may break before the body is whole; the same key gives the same order.
                StatusCode::CREATED => {
                    let order = response.json::<Value>().await.ok()?;
                    Some(Some(order["id"].as_str().unwrap().to_owned()))
                }
                StatusCode::SERVICE_UNAVAILABLE => None,
                status => panic!("{status}: {}", response.text().await.unwrap_or_default()),
            }
        })
        .await;
        let Some(id) = id else { return };
        placed.lock().await.push(id.clone());
        if random.random_bool(0.1) {
            let url = format!("{}/{id}/cancel", urls[random.random_range(0..urls.len())]);
            // What comes of it is checked at the end, whatever was heard of it.
            drop(client.post(url).bearer_auth(&token).send().await);
        }
    }
}

/// Waits until so many more orders were placed.
async fn more(placed: &Mutex<Vec<String>>, orders: usize) {
    let wanted = placed.lock().await.len() + orders;
    until_async("orders are placed", || async {
        (placed.lock().await.len() >= wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_when_services_are_killed() {
    ordeal(Stack::start(2).await, None, kills(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_when_services_and_their_database_server_are_killed() {
    let test = "nothing_is_lost_or_done_twice_when_services_and_their_database_server_are_killed";
    let Some(server) = Server::start(Postgres::default(), test).await else {
        return;
    };
    let stack = Stack::start_over(&server, 2).await;
    ordeal(stack, Some(server), kills(4)).await;
}

/// Kills and starts services, and the server of their databases if there is one, while customers place and cancel orders.
async fn ordeal(mut stack: Stack, mut server: Option<Server>, kills: u32) {
    let mut random = StdRng::seed_from_u64(seed());
    let placed = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let urls: Vec<_> = stack
        .orders
        .iter()
        .map(|service| service.instance.url("/orders"))
        .collect();
    let shops: Vec<_> = (0..4)
        .map(|name| {
            let random = StdRng::from_rng(&mut random);
            let work = shop(
                stack.client.clone(),
                urls.clone(),
                stack.token.clone(),
                name,
                random,
                placed.clone(),
                stop.clone(),
            );
            tokio::spawn(work)
        })
        .collect();
    for _ in 0..kills {
        more(&placed, random.random_range(3..60)).await;
        if let Some(server) = server.as_mut().filter(|_| random.random_bool(0.3)) {
            server.kill();
            until_async("an instance feels it", || async {
                let request = stack.client.get(&urls[0]).bearer_auth(&stack.token);
                let status = request.send().await.ok()?.status();
                (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
            })
            .await;
            server.start_again().await.unwrap();
            continue;
        }
        let victim = match random.random_range(0..6) {
            0 => &mut stack.payments,
            1 => &mut stack.notifications,
            n => &mut stack.orders[n % 2],
        };
        victim.kill();
        // Orders are taken whoever is away.
        more(&placed, random.random_range(0..20)).await;
        victim.start_again().await;
    }
    stop.store(true, Ordering::SeqCst);
    for shop in shops {
        shop.await.unwrap();
    }
    let placed = placed.lock().await.clone();
    assert!(
        placed.len() > 20,
        "there was load: {} orders, {kills} kills",
        placed.len()
    );
    assert_eq!(
        placed.iter().collect::<HashSet<_>>().len(),
        placed.len(),
        "no id is used twice"
    );

    let orders = quiet(&stack).await;
    for id in &placed {
        assert!(orders.contains_key(id), "{id} got a 201 and is lost");
    }
    // Orders whose answer was lost are there too, and obey the same rules.
    let mut charges: HashMap<String, Vec<ChargeStatus>> = HashMap::new();
    for charge in stack.charges("").await {
        charges
            .entry(charge.order_id.clone())
            .or_default()
            .push(charge.status());
    }
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    for (subject, kind) in stack.notified("").await {
        told.entry(subject).or_default().push(kind);
    }
    for (id, order) in &orders {
        let charges = charges.remove(id).unwrap_or_default();
        let told = told.remove(id).unwrap_or_default();
        let (expected_charges, expected_events): (&[&[ChargeStatus]], &[&str]) = match order["status"].as_str().unwrap()
        {
            "delivered" => (
                &[&[ChargeStatus::Charged]],
                &["order.created", "order.paid", "order.delivered"],
            ),
            "refunded" => (
                &[&[ChargeStatus::Refunded]],
                &["order.created", "order.paid", "order.refunded"],
            ),
            "cancelled" => (&[&[ChargeStatus::Declined], &[]], &["order.created", "order.cancelled"]),
            other => panic!("{id} ended as {other}: {order}"),
        };
        assert!(expected_charges.contains(&charges.as_slice()), "{order}: {charges:?}");
        assert_eq!(told, expected_events, "{order}");
    }
    assert!(charges.is_empty(), "charges without orders: {charges:?}");
    assert!(told.is_empty(), "events without orders: {told:?}");
    let (_, reconciliation) = stack.get("/reconciliation").await;
    assert_eq!(
        reconciliation["missing_orders"], 0,
        "no charge of a living order was taken for an orphan"
    );
    let (_, dead) = stack.get("/outbox/dead").await;
    assert_eq!(dead["events"].as_array().unwrap().len(), 0, "{dead}");
}

/// Waits until every order is final and every event has taken effect; all orders by id.
async fn quiet(stack: &Stack) -> HashMap<String, Value> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let mut all = HashMap::new();
        let mut after = String::new();
        loop {
            let (_, page) = stack.get(&format!("/orders?limit=1000&after={after}")).await;
            for order in page["orders"].as_array().unwrap() {
                all.insert(order["id"].as_str().unwrap().to_owned(), order.clone());
            }
            match page["next_after"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        let open = all
            .values()
            .filter(|order| ["pending", "paid"].contains(&order["status"].as_str().unwrap()));
        let open = open.count();
        let events: usize = all
            .values()
            .map(|order| if order["status"] == "cancelled" { 2 } else { 3 })
            .sum();
        let told = stack.notified("").await.len();
        if open == 0 && told >= events {
            return all;
        }
        assert!(
            Instant::now() < deadline,
            "{open} orders are open, {told} of {events} events took effect"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
