//! `opsctl.payments.v1.Payments`: from messages to the store and back. What is decided and stored is not its matter.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::request::{Invalid, Pages};
use proto::payments::v1::payments_server::{self, PaymentsServer};
use proto::payments::v1::refund_payment_request::Target as WireTarget;
use proto::payments::v1::{
    Charge as WireCharge, ChargeStatus, ListChargesRequest, ListChargesResponse, ProcessPaymentRequest,
    ProcessPaymentResponse, RefundPaymentRequest, RefundPaymentResponse,
};
use telemetry::{Metrics, catalogue};
use tonic::{Request, Response, Status};

use crate::charge::{self, Charge, Outcome, Target, decide};
use crate::store::{Answer, Query, Standing, Store, StoreError};

/// The longest message that is read: each field has its own, smaller limit.
const MAX_MESSAGE: usize = 64 << 10;
/// Page tokens are places in the list.
const PAGES: Pages = Pages::new("c1.");

/// The gRPC service over `store`.
pub fn server(store: Arc<dyn Store>, metrics: &Metrics) -> PaymentsServer<Payments> {
    // From the start, so that the first of each is seen as an increase.
    for outcome in ["charged", "declined", "replayed", "error"] {
        metrics.counter(catalogue::PAYMENTS_PROCESSED_TOTAL, [outcome]);
    }
    for outcome in ["refunded", "replayed", "not_found", "error"] {
        metrics.counter(catalogue::PAYMENTS_REFUNDED_TOTAL, [outcome]);
    }
    PaymentsServer::new(Payments {
        store,
        metrics: metrics.clone(),
    })
    .max_decoding_message_size(MAX_MESSAGE)
}

/// The implementation behind [`server`].
pub struct Payments {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

#[async_trait]
impl payments_server::Payments for Payments {
    async fn process_payment(
        &self,
        request: Request<ProcessPaymentRequest>,
    ) -> Result<Response<ProcessPaymentResponse>, Status> {
        let asked = request.into_inner();
        let result = self.process(asked).await;
        let outcome = match &result {
            Err(_) => "error",
            Ok(answer) if answer.replayed => "replayed",
            Ok(answer) if answer.charge.outcome == Outcome::Charged => "charged",
            Ok(_) => "declined",
        };
        self.metrics
            .counter(catalogue::PAYMENTS_PROCESSED_TOTAL, [outcome])
            .inc();
        let Answer { charge, replayed } = result?;
        if outcome == "charged" {
            self.metrics
                .counter(catalogue::PAYMENTS_CHARGED_CENTS_TOTAL, [])
                .inc_by(charge.amount_cents.unsigned_abs());
        }
        let (charge_id, order_id) = (charge.id, charge.order_id.as_str());
        let amount_cents = charge.amount_cents;
        match charge.outcome {
            Outcome::Charged => tracing::info!(%charge_id, order_id, amount_cents, replayed, "payment charged"),
            Outcome::Declined(why) => {
                let reason = why.as_str();
                tracing::info!(%charge_id, order_id, amount_cents, replayed, reason, "payment declined");
            }
        }
        Ok(Response::new(ProcessPaymentResponse {
            charge: Some(wire(charge)),
            replayed,
        }))
    }

    async fn refund_payment(
        &self,
        request: Request<RefundPaymentRequest>,
    ) -> Result<Response<RefundPaymentResponse>, Status> {
        let asked = request.into_inner();
        let result = self.refund(asked).await;
        let outcome = match &result {
            Err(status) if status.code() == tonic::Code::NotFound => "not_found",
            Err(_) => "error",
            Ok(answer) if answer.replayed => "replayed",
            Ok(_) => "refunded",
        };
        self.metrics
            .counter(catalogue::PAYMENTS_REFUNDED_TOTAL, [outcome])
            .inc();
        let Answer { charge, replayed } = result?;
        let (charge_id, order_id) = (charge.id, charge.order_id.as_str());
        tracing::info!(%charge_id, order_id, replayed, "payment refunded");
        Ok(Response::new(RefundPaymentResponse {
            charge: Some(wire(charge)),
            replayed,
        }))
    }

    async fn list_charges(
        &self,
        request: Request<ListChargesRequest>,
    ) -> Result<Response<ListChargesResponse>, Status> {
        let query = query(request.into_inner())?;
        let page = self.store.list(query).await.map_err(status)?;
        Ok(Response::new(ListChargesResponse {
            charges: page.charges.into_iter().map(wire).collect(),
            next_page_token: PAGES.token(page.last),
            has_more: page.more,
        }))
    }
}

impl Payments {
    async fn process(&self, asked: ProcessPaymentRequest) -> Result<Answer, Status> {
        let request = charge::Request::new(
            asked.order_id,
            asked.idempotency_key,
            asked.amount_cents,
            asked.currency,
        )?;
        let outcome = decide(&request);
        self.store
            .charge(request, outcome, chassis::now())
            .await
            .map_err(status)
    }

    async fn refund(&self, asked: RefundPaymentRequest) -> Result<Answer, Status> {
        let target = match asked.target {
            Some(WireTarget::ChargeId(id)) => {
                Target::Charge(id.parse().map_err(|_| Invalid::new("charge_id", "a UUID"))?)
            }
            Some(WireTarget::OrderId(order)) => {
                charge::check_order(&order)?;
                Target::Order(order)
            }
            None => {
                return Err(Invalid::new("target", "a charge_id or an order_id").into());
            }
        };
        charge::check_key(&asked.idempotency_key)?;
        self.store
            .refund(target, asked.idempotency_key, chassis::now())
            .await
            .map_err(status)
    }
}

fn query(asked: ListChargesRequest) -> Result<Query, Status> {
    let (after, limit) = PAGES.place(&asked.page_token, asked.page_size)?;
    let standing = match ChargeStatus::try_from(asked.status) {
        Ok(ChargeStatus::Unspecified) => None,
        Ok(ChargeStatus::Charged) => Some(Standing::Charged),
        Ok(ChargeStatus::Declined) => Some(Standing::Declined),
        Ok(ChargeStatus::Refunded) => Some(Standing::Refunded),
        Err(_) => {
            return Err(Invalid::new("status", "a known status").into());
        }
    };
    let order_id = Some(asked.order_id).filter(|order| !order.is_empty());
    if let Some(order) = &order_id {
        charge::check_order(order)?;
    }
    Ok(Query {
        after,
        limit,
        order_id,
        standing,
    })
}

fn wire(charge: Charge) -> WireCharge {
    let status = match Standing::of(&charge) {
        Standing::Charged => ChargeStatus::Charged,
        Standing::Declined => ChargeStatus::Declined,
        Standing::Refunded => ChargeStatus::Refunded,
    };
    let decline_reason = match charge.outcome {
        Outcome::Charged => String::new(),
        Outcome::Declined(decline) => decline.as_str().to_owned(),
    };
    WireCharge {
        charge_id: charge.id.to_string(),
        order_id: charge.order_id,
        amount_cents: charge.amount_cents,
        currency: charge.currency,
        status: status.into(),
        decline_reason,
        created_at: charge.created_at.to_string(),
        refunded_at: charge.refunded_at.map(|at| at.to_string()).unwrap_or_default(),
    }
}

fn status(error: StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::KeyReused => Status::already_exists(message),
        StoreError::OrderCharged | StoreError::NothingTaken => Status::failed_precondition(message),
        StoreError::NotFound => Status::not_found(message),
        StoreError::Database(error) => error.into(),
    }
}
