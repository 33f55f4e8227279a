//! The REST view: routes, shapes, status codes. Described for others in `openapi.json`, which a test compares with what
//! is here.

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRef, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::auth::Verifier;
use crate::clock;
use crate::domain::{Item, Order, OrderId, OrderRequest, Status};
use crate::problem::Problem;
use crate::saga::Reason;
use crate::service::{Customer, Orders};

/// The OpenAPI 3.1 document of these routes.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Bytes that a request's body may have.
pub const MAX_BODY: usize = 64 * 1024;

/// What handlers need.
#[derive(Clone)]
pub struct App {
    /// The application.
    pub orders: Orders,
    /// Who asks.
    pub verifier: Verifier,
}

impl FromRef<App> for Orders {
    fn from_ref(app: &App) -> Self {
        app.orders.clone()
    }
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

/// One route.
pub struct Route {
    /// Path, with `{id}` for parameters.
    pub path: &'static str,
    /// Methods.
    pub methods: &'static [Method],
    handler: MethodRouter<App>,
}

/// All routes of the API.
pub fn routes() -> Vec<Route> {
    let route = |path, methods, handler| Route { path, methods, handler };
    vec![
        route("/orders", &[Method::POST, Method::GET], post(place).get(list)),
        route("/orders/{id}", &[Method::GET], get(read)),
        route("/orders/{id}/steps", &[Method::GET], get(steps)),
        route("/orders/{id}/cancel", &[Method::POST], post(cancel)),
        route("/reconciliation", &[Method::GET], get(reconciliation)),
        route("/outbox/dead", &[Method::GET], get(dead_events)),
        route("/openapi.json", &[Method::GET], get(openapi)),
    ]
}

/// The API as a router.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path does not take this method",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// What is answered where there is no route.
pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "nothing is here")
}

async fn place(
    State(orders): State<Orders>,
    customer: Customer,
    headers: HeaderMap,
    body: Result<Json<OrderRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = body.map_err(|rejection| body_problem(&rejection))?;
    let key = headers
        .get(IDEMPOTENCY_KEY)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let placed = orders.place(&customer, request, key).await?;
    let mut response = (StatusCode::CREATED, Json(OrderView::from(&placed.order))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{}", placed.order.id)) {
        headers.insert(header::LOCATION, location);
    }
    if placed.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(
    State(orders): State<Orders>,
    customer: Customer,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ListView>, Problem> {
    let Query(query) =
        query.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, "bad_query", rejection.body_text()))?;
    let after = query.after.filter(|after| !after.is_empty());
    let after = after
        .map(|after| after.parse::<OrderId>())
        .transpose()
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("`after` is {error}")))?;
    let page = orders.orders(&customer, after, query.limit).await?;
    Ok(Json(ListView {
        schema: "opsctl.orders/v1",
        orders: page.orders.iter().map(OrderView::from).collect(),
        next_after: page.next_after.map(|id| id.to_string()),
    }))
}

async fn read(
    State(orders): State<Orders>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<Json<OrderView>, Problem> {
    let order = orders.order(&customer, order_id(&id)?).await?;
    Ok(Json(OrderView::from(&order)))
}

async fn steps(
    State(orders): State<Orders>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<Json<StepsView>, Problem> {
    let steps = orders.steps(&customer, order_id(&id)?).await?;
    let steps = steps.into_iter().map(|step| StepView {
        step: step.step.as_str(),
        attempts: step.attempts,
        begun_at: step.begun_at.to_string(),
        ended_at: step.ended_at.map(|at| at.to_string()),
        outcome: step.outcome,
    });
    Ok(Json(StepsView {
        schema: "opsctl.order_steps/v1",
        order_id: id,
        steps: steps.collect(),
    }))
}

async fn cancel(
    State(orders): State<Orders>,
    customer: Customer,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<OrderView>), Problem> {
    let order = orders.cancel(&customer, order_id(&id)?).await?;
    let status = if order.saga.status.is_final() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(OrderView::from(&order))))
}

async fn reconciliation(State(orders): State<Orders>) -> Result<Json<ReconciliationView>, Problem> {
    let found = orders.reconciliation().await?;
    let refunded = found
        .orphans
        .iter()
        .filter(|orphan| orphan.refunded_at.is_some())
        .count();
    let orphans = found.orphans.into_iter().map(|orphan| OrphanView {
        charge_id: orphan.charge_id,
        order_id: orphan.order_id,
        amount_cents: orphan.amount_cents,
        currency: orphan.currency,
        charged_at: orphan.charged_at,
        found_at: orphan.found_at.to_string(),
        refunded_at: orphan.refunded_at.map(|at| at.to_string()),
        error: orphan.error,
    });
    let orphans: Vec<_> = orphans.collect();
    Ok(Json(ReconciliationView {
        schema: "opsctl.reconciliation/v1",
        last_pass_at: found.seen.last_pass_at.map(|at| at.to_string()),
        last_error: found.seen.last_error,
        charges_checked: found.seen.checked,
        missing_orders: orphans.len(),
        refunded,
        charges: orphans,
    }))
}

async fn dead_events(State(orders): State<Orders>) -> Result<Json<DeadEventsView>, Problem> {
    let dead = orders.dead_events().await?;
    let events = dead.into_iter().map(|dead| DeadEventView {
        event_id: dead.event.id.to_string(),
        r#type: dead.event.kind.as_str(),
        version: dead.event.version,
        order_id: dead.event.order.to_string(),
        occurred_at: dead.event.occurred_at.to_string(),
        refusals: dead.refusals,
        error: dead.error,
    });
    Ok(Json(DeadEventsView {
        schema: "opsctl.outbox_dead/v1",
        events: events.collect(),
    }))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

impl<S> FromRequestParts<S> for Customer
where
    Verifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let header = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        Ok(Verifier::from_ref(state)
            .verify(header, clock::now().as_second())
            .await?)
    }
}

fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse()
        .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "not_found", "no such order"))
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body may have {MAX_BODY} bytes"),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body must be JSON, with content-type: application/json",
        ),
        _ => Problem::new(StatusCode::BAD_REQUEST, "bad_json", rejection.body_text()),
    }
}

/// An order as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct OrderView {
    schema: &'static str,
    id: String,
    status: Status,
    items: Vec<Item>,
    currency: String,
    address: String,
    total_cents: u64,
    reason: Option<Reason>,
    detail: Option<String>,
    cancel_requested: bool,
    charge_id: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        Self {
            schema: "opsctl.order/v1",
            id: order.id.to_string(),
            status: order.saga.status,
            items: order.items.clone(),
            currency: order.currency.clone(),
            address: order.address.clone(),
            total_cents: order.total_cents,
            reason: order.saga.reason,
            detail: order.saga.detail.clone(),
            cancel_requested: order.saga.cancel_requested,
            charge_id: order.saga.charge_id.clone(),
            created_at: order.created_at.to_string(),
            updated_at: order.updated_at.to_string(),
        }
    }
}

#[derive(Serialize)]
struct ListView {
    schema: &'static str,
    orders: Vec<OrderView>,
    next_after: Option<String>,
}

#[derive(Serialize)]
struct StepsView {
    schema: &'static str,
    order_id: String,
    steps: Vec<StepView>,
}

#[derive(Serialize)]
struct StepView {
    step: &'static str,
    attempts: u32,
    begun_at: String,
    ended_at: Option<String>,
    outcome: Option<String>,
}

#[derive(Serialize)]
struct ReconciliationView {
    schema: &'static str,
    last_pass_at: Option<String>,
    last_error: Option<String>,
    charges_checked: u64,
    missing_orders: usize,
    refunded: usize,
    charges: Vec<OrphanView>,
}

#[derive(Serialize)]
struct OrphanView {
    charge_id: String,
    order_id: String,
    amount_cents: i64,
    currency: String,
    charged_at: String,
    found_at: String,
    refunded_at: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct DeadEventsView {
    schema: &'static str,
    events: Vec<DeadEventView>,
}

#[derive(Serialize)]
struct DeadEventView {
    event_id: String,
    r#type: &'static str,
    version: u32,
    order_id: String,
    occurred_at: String,
    refusals: u32,
    error: String,
}
