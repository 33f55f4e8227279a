//! Payments and notifications by gRPC, each under its policy: retries with a budget, a breaker, time limits. Calls carry
//! the trace and the deadline. A result that is not known stays unknown: nothing here guesses.

use std::time::Duration;

use async_trait::async_trait;
use proto::notifications::v1::notifications_client::NotificationsClient;
use proto::notifications::v1::{Event as WireEvent, PublishEventRequest};
use proto::payments::v1 as wire;
use proto::payments::v1::payments_client::PaymentsClient;
use proto::payments::v1::refund_payment_request::Target;
use resilience::grpc::GrpcClassify;
use resilience::{Error, Pipeline, Safety};
use telemetry::client::GrpcClientService;
use telemetry::{GrpcClientLayer, Metrics};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::domain::Order;
use crate::ports::{Charge, ChargePage, Payments, PeerError, PublishError, Publisher};
use crate::saga::Outcome;
use crate::store::Event;

type Outgoing = InterceptedService<GrpcClientService<Channel>, fn(Request<()>) -> Result<Request<()>, Status>>;

/// The policies that are compiled in: one for each service that orders calls.
pub const POLICIES: &str = include_str!("../policies.toml");

/// A channel that connects when it is used, and again after a loss. Needs a runtime.
pub fn channel(url: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// Each attempt has a span, carries the trace, and is counted.
fn observed(channel: Channel, metrics: &Metrics) -> GrpcClientService<Channel> {
    GrpcClientLayer::new().measured(metrics).around(channel)
}

/// Payments by gRPC.
#[derive(Debug, Clone)]
pub struct GrpcPayments {
    client: PaymentsClient<Outgoing>,
    policy: Pipeline,
}

impl GrpcPayments {
    /// Calls over `channel` under `policy`, counted in `metrics`.
    pub fn new(channel: Channel, policy: Pipeline, metrics: &Metrics) -> Self {
        Self {
            client: PaymentsClient::with_interceptor(observed(channel, metrics), resilience::grpc::deadline_out),
            policy,
        }
    }

    async fn process(&self, order: &Order) -> Result<wire::ProcessPaymentResponse, Error<Status>> {
        let request = wire::ProcessPaymentRequest {
            order_id: order.id.to_string(),
            idempotency_key: order.id.charge_key(),
            amount_cents: order.total_cents.cast_signed(),
            currency: order.currency.clone(),
        };
        // The key makes it safe to repeat.
        let call = self.policy.call_with(Safety::Idempotent, &GrpcClassify, |_| {
            let mut client = self.client.clone();
            let request = request.clone();
            async move { client.process_payment(request).await }
        });
        Ok(call.await?.into_inner())
    }

    async fn refund_by_key(&self, charge_id: &str, key: String) -> Result<(), Error<Status>> {
        let request = wire::RefundPaymentRequest {
            target: Some(Target::ChargeId(charge_id.to_owned())),
            idempotency_key: key,
        };
        let call = self.policy.call_with(Safety::Idempotent, &GrpcClassify, |_| {
            let mut client = self.client.clone();
            let request = request.clone();
            async move { client.refund_payment(request).await }
        });
        call.await.map(drop)
    }

    async fn list(&self, request: wire::ListChargesRequest) -> Result<wire::ListChargesResponse, Error<Status>> {
        let call = self.policy.call_with(Safety::Idempotent, &GrpcClassify, |_| {
            let mut client = self.client.clone();
            let request = request.clone();
            async move { client.list_charges(request).await }
        });
        Ok(call.await?.into_inner())
    }

    /// Whether a charge was refunded meanwhile. An answer that repeats an old one shows the charge as it was then; so
    /// after a restore of orders, only the list says what became of it.
    async fn was_refunded(&self, order: &Order, charge_id: &str) -> Result<bool, Error<Status>> {
        let request = wire::ListChargesRequest {
            order_id: order.id.to_string(),
            ..Default::default()
        };
        let charges = self.list(request).await?.charges;
        let charge = charges.iter().find(|charge| charge.charge_id == charge_id);
        Ok(charge.is_some_and(|charge| charge.status() == wire::ChargeStatus::Refunded))
    }

    async fn try_charge(&self, order: &Order) -> Result<Outcome, Error<Status>> {
        let answer = self.process(order).await?;
        let Some(charge) = answer.charge else {
            return Ok(Outcome::Unknown {
                reason: "payments answered without a charge".into(),
            });
        };
        let charge_id = charge.charge_id.clone();
        Ok(match charge.status() {
            wire::ChargeStatus::Charged if answer.replayed && self.was_refunded(order, &charge_id).await? => {
                Outcome::ChargedAndRefunded { charge_id }
            }
            wire::ChargeStatus::Charged => Outcome::Charged { charge_id },
            wire::ChargeStatus::Refunded => Outcome::ChargedAndRefunded { charge_id },
            wire::ChargeStatus::Declined => Outcome::Declined {
                reason: charge.decline_reason,
            },
            wire::ChargeStatus::Unspecified => Outcome::Unknown {
                reason: "payments sent no status".into(),
            },
        })
    }
}

#[async_trait]
impl Payments for GrpcPayments {
    async fn charge(&self, order: &Order) -> Outcome {
        self.try_charge(order).await.unwrap_or_else(|error| match error {
            Error::Inner(status) if status.code() == Code::InvalidArgument => Outcome::Impossible {
                reason: status.message().to_owned(),
            },
            error => Outcome::Unknown { reason: told(&error) },
        })
    }

    async fn refund(&self, order: &Order) -> Outcome {
        let Some(charge_id) = &order.saga.charge_id else {
            return Outcome::Impossible {
                reason: "the order has no charge".into(),
            };
        };
        match self.refund_by_key(charge_id, order.id.refund_key()).await {
            Ok(()) => Outcome::Refunded,
            Err(Error::Inner(status)) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => {
                Outcome::Impossible {
                    reason: status.message().to_owned(),
                }
            }
            Err(error) => Outcome::Unknown { reason: told(&error) },
        }
    }

    async fn kept_charges(&self, after: &str) -> Result<ChargePage, PeerError> {
        let request = wire::ListChargesRequest {
            page_size: 1000,
            page_token: after.to_owned(),
            status: wire::ChargeStatus::Charged.into(),
            ..Default::default()
        };
        let page = self
            .list(request)
            .await
            .map_err(|error| peer_error("payments", &error))?;
        let charges = page.charges.into_iter().map(|charge| Charge {
            id: charge.charge_id,
            order_id: charge.order_id,
            amount_cents: charge.amount_cents,
            currency: charge.currency,
            created_at: charge.created_at,
        });
        Ok(ChargePage {
            charges: charges.collect(),
            next: page.next_page_token,
            more: page.has_more,
        })
    }

    async fn refund_charge(&self, charge: &Charge) -> Result<(), PeerError> {
        let key = format!("order:{}:refund", charge.order_id);
        self.refund_by_key(&charge.id, key)
            .await
            .map_err(|error| peer_error("payments", &error))
    }
}

/// Notifications by gRPC.
#[derive(Debug, Clone)]
pub struct GrpcNotifications {
    client: NotificationsClient<Outgoing>,
    policy: Pipeline,
}

impl GrpcNotifications {
    /// Calls over `channel` under `policy`, counted in `metrics`.
    pub fn new(channel: Channel, policy: Pipeline, metrics: &Metrics) -> Self {
        Self {
            client: NotificationsClient::with_interceptor(observed(channel, metrics), resilience::grpc::deadline_out),
            policy,
        }
    }
}

#[async_trait]
impl Publisher for GrpcNotifications {
    async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        let request = PublishEventRequest {
            event: Some(WireEvent {
                event_id: event.id.to_string(),
                r#type: event.kind.as_str().to_owned(),
                version: event.version,
                subject: event.order.to_string(),
                source: "orders".to_owned(),
                occurred_at: event.occurred_at.to_string(),
                payload: event.payload.clone().into_bytes(),
            }),
        };
        let call = self.policy.call_with(Safety::Idempotent, &GrpcClassify, |_| {
            let mut client = self.client.clone();
            let request = request.clone();
            async move { client.publish_event(request).await }
        });
        match call.await {
            Ok(_) => Ok(()),
            Err(Error::Inner(status)) if is_refusal(status.code()) => Err(PublishError::Refused(format!(
                "{:?}: {}",
                status.code(),
                status.message()
            ))),
            Err(error) => Err(PublishError::Unreachable(told(&error))),
        }
    }
}

/// Codes that say that the consumer saw the event and will not have it.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented
    )
}

fn peer_error(peer: &'static str, error: &Error<Status>) -> PeerError {
    PeerError {
        peer,
        reason: told(error),
    }
}

/// One line for people.
fn told(error: &Error<Status>) -> String {
    match error {
        Error::Inner(status) => format!("{:?}: {}", status.code(), status.message()),
        error => error.to_string(),
    }
}
