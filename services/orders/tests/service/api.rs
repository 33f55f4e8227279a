//! The REST surface: what is refused and how, who may ask, and that `openapi.json` says what is there.

use std::collections::BTreeSet;

use chassis::trial::until_async;
use orders::rest::{OPENAPI, routes};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::identity::Key;
use crate::stack::{Stack, answer, book};

#[test]
fn the_document_and_the_routes_are_the_same() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((path.clone(), method.to_uppercase()));
        }
    }
    let routed: BTreeSet<_> = routes()
        .iter()
        .flat_map(|route| {
            route
                .methods
                .iter()
                .map(|method| (route.path.to_owned(), method.to_string()))
        })
        .collect();
    assert_eq!(described, routed);
}

/// Checks a value against the part of JSON Schema that the document uses; anything else in it is refused.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                check(document, document.pointer(pointer).expect(pointer), value, at);
            }
            "type" => {
                let fits = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                let names = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                assert!(names.iter().any(fits), "{at}: {value} is no {rule}");
            }
            "const" => assert_eq!(value, rule, "{at}"),
            "enum" => assert!(
                rule.as_array().unwrap().contains(value),
                "{at}: {value} is none of {rule}"
            ),
            "required" => {
                for name in rule.as_array().unwrap() {
                    assert!(
                        value.get(name.as_str().unwrap()).is_some(),
                        "{at}: {name} is missing in {value}"
                    );
                }
            }
            "properties" => {
                for (name, part) in value.as_object().unwrap() {
                    let schema = rule
                        .get(name)
                        .unwrap_or_else(|| panic!("{at}: {name} is not described"));
                    check(document, schema, part, &format!("{at}/{name}"));
                }
            }
            "items" => {
                for part in value.as_array().unwrap() {
                    check(document, rule, part, &format!("{at}/*"));
                }
            }
            "minimum" => assert!(value.as_i64().unwrap() >= rule.as_i64().unwrap(), "{at}"),
            "maximum" => assert!(value.as_i64().unwrap() <= rule.as_i64().unwrap(), "{at}"),
            "minItems" => assert!(value.as_array().unwrap().len() as u64 >= rule.as_u64().unwrap(), "{at}"),
            "maxItems" => assert!(value.as_array().unwrap().len() as u64 <= rule.as_u64().unwrap(), "{at}"),
            // Properties outside the list fail above; formats and patterns are for clients.
            "additionalProperties" | "description" | "format" | "pattern" | "minLength" | "maxLength" => {}
            other => panic!("{at}: the checker does not know {other}"),
        }
    }
}

struct Checked {
    document: Value,
    seen: BTreeSet<(String, String, u16)>,
}

impl Checked {
    /// Sends a request and checks that its answer is described.
    async fn send(&mut self, path: &str, method: &str, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        let described = &self.document["paths"][path][method]["responses"][status.to_string()];
        assert!(
            described.is_object(),
            "{method} {path} -> {status} is not described: {body}"
        );
        let schema = &described["content"][&content_type]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path} -> {status}: {content_type} is not described"
        );
        check(&self.document, schema, &body, &format!("{method} {path} {status}"));
        self.seen.insert((method.to_owned(), path.to_owned(), status));
        body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_described() {
    let stack = Stack::start(1).await;
    let mut checked = Checked {
        document: serde_json::from_str(OPENAPI).unwrap(),
        seen: BTreeSet::new(),
    };
    let client = &stack.client;
    let token = &stack.token;
    let orders = stack.url("/orders");
    let post = |body: &Value| client.post(&orders).bearer_auth(token).json(body);

    check(
        &checked.document,
        &json!({"$ref": "#/components/schemas/NewOrder"}),
        &book(1, 100, "x"),
        "NewOrder",
    );
    let placed = checked.send("/orders", "post", post(&book(1, 100, "here"))).await;
    let id = placed["id"].as_str().unwrap();
    stack.until(id, "delivered").await;
    let refused = stack.place(&book(1, 100, "nowhere")).await;
    stack.until(&refused, "refunded").await;

    // What is wrong, each with its own answer.
    let wrong =
        json!({"items": [{"sku": "", "quantity": 0, "unit_price_cents": 5}], "currency": "euro", "address": ""});
    let problem = checked.send("/orders", "post", post(&wrong)).await;
    assert_eq!(
        (problem["code"].as_str(), problem["errors"].as_array().unwrap().len()),
        (Some("invalid"), 4)
    );
    let mut unknown = book(1, 100, "here");
    unknown["colour"] = json!("red");
    let problem = checked.send("/orders", "post", post(&unknown)).await;
    assert!(
        problem["code"] == "bad_json" && problem["detail"].as_str().unwrap().contains("colour"),
        "{problem}"
    );
    let text = client.post(&orders).bearer_auth(token).body("{}");
    assert_eq!(checked.send("/orders", "post", text).await["code"], "not_json");
    let long = json!({"items": [], "currency": "EUR", "address": "x".repeat(70_000)});
    assert_eq!(checked.send("/orders", "post", post(&long)).await["code"], "too_large");
    assert_eq!(
        checked.send("/orders", "post", client.post(&orders).json(&wrong)).await["code"],
        "unauthorized"
    );

    // Idempotency keys.
    let keyed = |body: &Value| post(body).header("idempotency-key", "k-1");
    let first = checked.send("/orders", "post", keyed(&book(1, 100, "here"))).await;
    let again = keyed(&book(1, 100, "here")).send().await.unwrap();
    assert_eq!(
        (again.status(), again.headers()["idempotent-replayed"].to_str().unwrap()),
        (StatusCode::CREATED, "true")
    );
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    let reused = checked.send("/orders", "post", keyed(&book(2, 100, "here"))).await;
    assert_eq!(reused["code"], "idempotency_key_reused");
    let bad = checked
        .send(
            "/orders",
            "post",
            post(&book(1, 1, "x")).header("idempotency-key", "with space"),
        )
        .await;
    assert_eq!(bad["errors"][0]["pointer"], "Idempotency-Key");

    // Reading, paging, others' orders.
    let one = |path: &str, token: &str| client.get(stack.url(path)).bearer_auth(token);
    let read = checked
        .send("/orders/{id}", "get", one(&format!("/orders/{id}"), token))
        .await;
    assert_eq!(read["id"], id);
    checked
        .send("/orders/{id}/steps", "get", one(&format!("/orders/{id}/steps"), token))
        .await;
    let bob = stack.key.token("bob", 60);
    let foreign = checked
        .send("/orders/{id}", "get", one(&format!("/orders/{id}"), &bob))
        .await;
    assert_eq!(foreign["code"], "not_found");
    checked.send("/orders/{id}", "get", one("/orders/7", token)).await;
    checked
        .send("/orders/{id}/steps", "get", one(&format!("/orders/{id}/steps"), &bob))
        .await;
    let page = checked.send("/orders", "get", one("/orders?limit=2", token)).await;
    let next = page["next_after"].as_str().unwrap();
    let rest = checked
        .send("/orders", "get", one(&format!("/orders?after={next}"), token))
        .await;
    assert_eq!(
        (
            page["orders"].as_array().unwrap().len(),
            rest["orders"].as_array().unwrap().len()
        ),
        (2, 1)
    );
    assert!(rest["next_after"].is_null());
    checked.send("/orders", "get", one("/orders?limit=0", token)).await;
    checked.send("/orders", "get", one("/orders?limit=some", token)).await;
    checked.send("/orders", "get", one("/orders?after=7", token)).await;
    checked.send("/orders", "get", client.get(&orders)).await;

    // Cancelling.
    let cancel = |id: &str, token: &str| {
        client
            .post(stack.url(&format!("/orders/{id}/cancel")))
            .bearer_auth(token)
    };
    checked.send("/orders/{id}/cancel", "post", cancel(id, token)).await;
    checked
        .send("/orders/{id}/cancel", "post", cancel(&refused, token))
        .await;
    checked.send("/orders/{id}/cancel", "post", cancel(id, &bob)).await;

    checked
        .send("/reconciliation", "get", client.get(stack.url("/reconciliation")))
        .await;
    checked
        .send("/outbox/dead", "get", client.get(stack.url("/outbox/dead")))
        .await;
    checked
        .send("/openapi.json", "get", client.get(stack.url("/openapi.json")))
        .await;
    // All that is described was seen, but for what takes a dead identity, a full queue or luck.
    for (path, methods) in checked.document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                let seen = checked
                    .seen
                    .contains(&(method.clone(), path.clone(), status.parse().unwrap()));
                assert!(
                    seen || ["202", "401", "503"].contains(&status.as_str()),
                    "{method} {path} {status}"
                );
            }
        }
    }

    let wrong_method = answer(client.put(&orders)).await;
    assert_eq!(
        (wrong_method.0, wrong_method.1["code"].as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"))
    );
    assert_eq!(answer(client.get(stack.url("/nothing"))).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tokens_of_identity_count_also_while_it_is_away() {
    let mut stack = Stack::start(1).await;
    let list = |stack: &Stack, token: String| {
        let request = stack.client.get(stack.url("/orders")).bearer_auth(token);
        async move { answer(request).await.0 }
    };
    assert_eq!(list(&stack, stack.token.clone()).await, StatusCode::OK);
    assert_eq!(
        list(&stack, stack.key.token("ann", -60)).await,
        StatusCode::UNAUTHORIZED,
        "expired"
    );
    let stranger = Key::new("k1");
    assert_eq!(
        list(&stack, stranger.token("ann", 60)).await,
        StatusCode::UNAUTHORIZED,
        "signed by another"
    );
    let none = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
    assert_eq!(
        list(&stack, none.to_owned()).await,
        StatusCode::UNAUTHORIZED,
        "not signed"
    );
    assert_eq!(list(&stack, "nonsense".to_owned()).await, StatusCode::UNAUTHORIZED);

    // A new key is fetched when the first token comes that it signed; asking too often is refused until it may.
    let next = Key::new("k2");
    stack.identity.publish(&[&stack.key, &next]);
    until_async("the new key is known", || async {
        (list(&stack, next.token("ann", 60)).await == StatusCode::OK).then_some(())
    })
    .await;
    stack.identity.stop();
    assert_eq!(
        list(&stack, stack.key.token("eve", 60)).await,
        StatusCode::OK,
        "the keys are still there"
    );
    assert_eq!(list(&stack, next.token("eve", 60)).await, StatusCode::OK);
    assert_eq!(
        list(&stack, Key::new("k3").token("eve", 60)).await,
        StatusCode::UNAUTHORIZED
    );
}
