//! What becomes of orders: delivered, declined, refused, cancelled; by one instance or two.

use std::time::Duration;

use chassis::trial::{PATIENCE, Trial, until_async};
use proto::orders::v1::orders_client::OrdersClient;
use proto::orders::v1::{
    CancelOrderRequest, CreateOrderRequest, GetOrderRequest, Item, ListOrdersRequest, OrderStatus,
};
use proto::payments::v1::{Charge, ChargeStatus};
use reqwest::StatusCode;
use serde_json::json;
use tonic::{Code, Request};

use crate::identity::{Identity, Key};
use crate::stack::{Service, Stack, answer, book, sibling};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_charged_delivered_and_told() {
    let stack = Stack::start(1).await;
    let (status, placed) = stack.post("/orders", &book(2, 1250, "1 Main Street")).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (placed["status"].as_str(), placed["total_cents"].as_u64()),
        (Some("pending"), Some(2500))
    );
    let id = placed["id"].as_str().unwrap();
    let order = stack.until(id, "delivered").await;
    let charges = stack.charges(id).await;
    assert_eq!(charges.len(), 1);
    assert_eq!(
        (charges[0].status(), charges[0].amount_cents),
        (ChargeStatus::Charged, 2500)
    );
    assert_eq!(order["charge_id"], charges[0].charge_id);
    stack
        .until_notified(id, &["order.created", "order.paid", "order.delivered"])
        .await;

    let (_, steps) = stack.get(&format!("/orders/{id}/steps")).await;
    let outcomes: Vec<_> = steps["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["charged", "delivered"]);
    let (status, problem) = stack.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (StatusCode::CONFLICT, Some("too_late"))
    );
    let orders = &stack.orders[0].instance;
    assert!((orders.metric("orders_created_total").await - 1.0).abs() < 0.1);
    let charged = "grpc_client_handled_total{grpc_type=\"unary\",grpc_service=\"opsctl.payments.v1.Payments\",\
                   grpc_method=\"ProcessPayment\",grpc_code=\"OK\"}";
    assert!((orders.metric(charged).await - 1.0).abs() < 0.1);
    assert!((orders.metric("orders_finished_total{status=\"delivered\"}").await - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_order_is_cancelled_and_never_charged() {
    let stack = Stack::start(1).await;
    let id = stack.place(&book(1, 1_000_001, "here")).await;
    let order = stack.until(&id, "cancelled").await;
    assert_eq!(order["reason"], "payment_declined");
    let charges = stack.charges(&id).await;
    assert!(
        charges.iter().all(|charge| charge.status() == ChargeStatus::Declined),
        "{charges:?}"
    );
    stack.until_notified(&id, &["order.created", "order.cancelled"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_is_refunded() {
    let stack = Stack::start(1).await;
    for order in [book(1, 100, "42 Nowhere Lane"), book(1001, 100, "here")] {
        let id = stack.place(&order).await;
        let order = stack.until(&id, "refunded").await;
        assert_eq!(order["reason"], "delivery_refused");
        let charges = stack.charges(&id).await;
        assert_eq!(
            charges.iter().map(Charge::status).collect::<Vec<_>>(),
            [ChargeStatus::Refunded]
        );
        stack
            .until_notified(&id, &["order.created", "order.paid", "order.refunded"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_while_payments_is_away_is_refunded_when_it_is_back() {
    let mut stack = Stack::start(1).await;
    stack.payments.kill();
    let id = stack.place(&book(1, 100, "here")).await;
    let (status, order) = stack.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!(
        (status, order["cancel_requested"].as_bool()),
        (StatusCode::ACCEPTED, Some(true)),
        "{order}"
    );
    assert_eq!(order["status"], "pending");
    stack.payments.start_again().await;
    let order = stack.until(&id, "refunded").await;
    assert_eq!(order["reason"], "cancelled_by_customer");
    let charges = stack.charges(&id).await;
    assert_eq!(
        charges.iter().map(Charge::status).collect::<Vec<_>>(),
        [ChargeStatus::Refunded]
    );
    let (status, again) = stack.post(&format!("/orders/{id}/cancel"), &json!({})).await;
    assert_eq!((status, again["status"].as_str()), (StatusCode::OK, Some("refunded")));
    stack
        .until_notified(&id, &["order.created", "order.paid", "order.refunded"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_each_do_a_part_and_see_each_others_orders() {
    let stack = Stack::start(2).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let url = stack.orders[number % 2].instance.url("/orders");
        let request = stack
            .client
            .post(url)
            .bearer_auth(&stack.token)
            .json(&book(1, 100, "here"));
        ids.push(answer(request).await.1["id"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        stack.until(id, "delivered").await;
    }
    for service in &stack.orders {
        let done = service
            .instance
            .metric("saga_steps_total{step=\"payment\",outcome=\"ok\"}")
            .await;
        assert!(done > 0.0, "both instances run sagas");
    }
    // A dead instance's sagas go to the other one.
    let mut stack = stack;
    stack.payments.kill();
    let url = stack.orders[1].instance.url("/orders");
    let request = stack
        .client
        .post(url)
        .bearer_auth(&stack.token)
        .json(&book(1, 100, "here"));
    let id = answer(request).await.1["id"].as_str().unwrap().to_owned();
    stack.orders[1].kill();
    stack.payments.start_again().await;
    stack.until(&id, "delivered").await;
    assert_eq!(stack.charges(&id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_the_same_service() {
    let stack = Stack::start(1).await;
    let mut client = OrdersClient::new(stack.orders[0].instance.channel());
    let token = stack.token.clone();
    let with = |message| {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let create = CreateOrderRequest {
        items: vec![Item {
            sku: "book".into(),
            quantity: 1,
            unit_price_cents: 100,
        }],
        currency: "EUR".into(),
        address: "here".into(),
        idempotency_key: "k".into(),
    };
    let refused = client.create_order(create.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let order = client
        .create_order(with(create.clone()))
        .await
        .unwrap()
        .into_inner()
        .order
        .unwrap();
    assert_eq!(order.status(), OrderStatus::Pending);
    stack.until(&order.id, "delivered").await;
    let again = client
        .create_order(with(create.clone()))
        .await
        .unwrap()
        .into_inner()
        .order
        .unwrap();
    assert_eq!((&again.id, again.status()), (&order.id, OrderStatus::Delivered));
    let other = CreateOrderRequest {
        address: "there".into(),
        ..create.clone()
    };
    assert_eq!(
        client.create_order(with(other)).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    let bad = CreateOrderRequest {
        currency: "?".into(),
        ..create
    };
    let status = client.create_order(with(bad)).await.unwrap_err();
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains("/currency"),
        "{status:?}"
    );

    let with_id = |id: &str| {
        let mut request = Request::new(GetOrderRequest { id: id.into() });
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", stack.token).parse().unwrap());
        request
    };
    let read = client
        .get_order(with_id(&order.id))
        .await
        .unwrap()
        .into_inner()
        .order
        .unwrap();
    assert_eq!(read, again);
    assert_eq!(
        client.get_order(with_id("nothing")).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut list = Request::new(ListOrdersRequest::default());
    list.metadata_mut()
        .insert("authorization", format!("Bearer {}", stack.token).parse().unwrap());
    assert_eq!(client.list_orders(list).await.unwrap().into_inner().orders, [read]);
    let mut cancel = Request::new(CancelOrderRequest { id: order.id });
    cancel
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", stack.token).parse().unwrap());
    assert_eq!(
        client.cancel_order(cancel).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_asked_and_ends_with_zero() {
    let mut stack = Stack::start(2).await;
    let url = stack.orders[0].instance.url("/orders");
    let requests: Vec<_> = (0..40)
        .map(|_| {
            stack
                .client
                .post(&url)
                .bearer_auth(&stack.token)
                .json(&book(1, 100, "here"))
                .send()
        })
        .map(tokio::spawn)
        .collect();
    let mut ids = Vec::new();
    for (number, request) in requests.into_iter().enumerate() {
        if number == 5 {
            stack.orders[0].instance.terminate();
        }
        // After the drain's end, connections are refused; nothing else may go wrong.
        match request.await.unwrap() {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::CREATED);
                let order: serde_json::Value = response.json().await.unwrap();
                ids.push(order["id"].as_str().unwrap().to_owned());
            }
            Err(error) => assert!(error.is_connect(), "{error:?}"),
        }
    }
    let ended = tokio::time::timeout(PATIENCE, stack.orders[0].instance.until_ended())
        .await
        .unwrap();
    assert_eq!(ended.code(), Some(0));
    stack.orders.swap(0, 1);
    assert!(ids.len() >= 5);
    for id in &ids {
        stack.until(id, "delivered").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_wrong_and_stays_ready_without_others() {
    let mut stack = Stack::start(1).await;
    stack.payments.kill();
    let instance = &stack.orders[0].instance;
    instance.check_probes().await;
    assert!(
        instance
            .get("/orders")
            .await
            .unwrap()
            .head
            .contains("x-service-version: dev")
    );
    let (status, _) = stack.post("/orders", &book(1, 100, "here")).await;
    assert_eq!(status, StatusCode::CREATED, "orders are taken while payments is away");
    let mut health = tonic_health::pb::health_client::HealthClient::new(stack.orders[0].instance.channel());
    let request = tonic_health::pb::HealthCheckRequest {
        service: "opsctl.orders.v1.Orders".into(),
    };
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    assert_eq!(health.check(request).await.unwrap().into_inner().status(), serving);
    let breaker = until_async("the breaker's state is told", || async {
        let text = stack.orders[0].instance.get("/metrics").await.ok()?.body;
        text.contains("circuit_breaker_state{name=\"payments\"").then_some(())
    });
    tokio::time::timeout(Duration::from_secs(10), breaker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_of_the_real_identity_orders() {
    telemetry::init_tls();
    let folder = tempfile::tempdir().unwrap();
    let real = Service::start(Trial::new(&sibling("identity"), &folder.path().join("identity"))).await;
    let key = Key::new("unused");
    let standby = Identity::start(&key).await;
    let url = real.instance.url("");
    let mut stack = Stack::start_with(1, folder, key, standby, &url, &[], &[]).await;
    let account = json!({"email": "ann@example.org", "password": "correct horse battery staple"});
    let register = stack.client.post(real.instance.url("/register")).json(&account);
    assert_eq!(answer(register).await.0, StatusCode::CREATED);
    let (status, login) = answer(stack.client.post(real.instance.url("/login")).json(&account)).await;
    assert_eq!(status, StatusCode::OK, "{login}");
    login["access_token"].as_str().unwrap().clone_into(&mut stack.token);
    let id = stack.place(&book(1, 100, "here")).await;
    stack.until(&id, "delivered").await;
}
