//! The gRPC view, `opsctl.orders.v1.Orders`: the same application with other words.

use proto::orders::v1 as wire;
use proto::orders::v1::orders_server::Orders as Service;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status as RpcStatus};

use crate::auth::{AuthError, Verifier};
use crate::clock;
use crate::domain::{ItemRequest, Order, OrderId, OrderRequest, Status};
use crate::orchestrator::chain;
use crate::service::{Customer, Orders, ServiceError};

/// Answers gRPC calls.
#[derive(Clone)]
pub struct Rpc {
    /// The application.
    pub orders: Orders,
    /// Who asks.
    pub verifier: Verifier,
}

impl Rpc {
    async fn customer(&self, metadata: &MetadataMap) -> Result<Customer, RpcStatus> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let verified = self.verifier.verify(header, clock::now().as_second()).await;
        verified.map_err(|error| match &error {
            AuthError::Missing | AuthError::Invalid(_) => RpcStatus::unauthenticated(error.to_string()),
            AuthError::Unavailable => RpcStatus::unavailable(error.to_string()),
        })
    }
}

#[tonic::async_trait]
impl Service for Rpc {
    async fn create_order(
        &self,
        request: Request<wire::CreateOrderRequest>,
    ) -> Result<Response<wire::CreateOrderResponse>, RpcStatus> {
        let customer = self.customer(request.metadata()).await?;
        let request = request.into_inner();
        let items = request.items.into_iter().map(|item| ItemRequest {
            sku: item.sku,
            quantity: i64::from(item.quantity),
            unit_price_cents: item.unit_price_cents,
        });
        let order = OrderRequest {
            items: items.collect(),
            currency: request.currency,
            address: request.address,
        };
        let key = Some(request.idempotency_key).filter(|key| !key.is_empty());
        let placed = self.orders.place(&customer, order, key).await.map_err(status)?;
        Ok(Response::new(wire::CreateOrderResponse {
            order: Some(view(placed.order)),
        }))
    }

    async fn get_order(
        &self,
        request: Request<wire::GetOrderRequest>,
    ) -> Result<Response<wire::GetOrderResponse>, RpcStatus> {
        let customer = self.customer(request.metadata()).await?;
        let order = self
            .orders
            .order(&customer, order_id(&request.get_ref().id)?)
            .await
            .map_err(status)?;
        Ok(Response::new(wire::GetOrderResponse {
            order: Some(view(order)),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<wire::ListOrdersRequest>,
    ) -> Result<Response<wire::ListOrdersResponse>, RpcStatus> {
        let customer = self.customer(request.metadata()).await?;
        let request = request.get_ref();
        let after = (!request.after.is_empty())
            .then(|| request.after.parse())
            .transpose()
            .map_err(|_| RpcStatus::invalid_argument("after: not an order id"))?;
        let limit = Some(request.limit as usize).filter(|limit| *limit > 0);
        let page = self.orders.orders(&customer, after, limit).await.map_err(status)?;
        Ok(Response::new(wire::ListOrdersResponse {
            orders: page.orders.into_iter().map(view).collect(),
            next_after: page.next_after.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn cancel_order(
        &self,
        request: Request<wire::CancelOrderRequest>,
    ) -> Result<Response<wire::CancelOrderResponse>, RpcStatus> {
        let customer = self.customer(request.metadata()).await?;
        let order = self
            .orders
            .cancel(&customer, order_id(&request.get_ref().id)?)
            .await
            .map_err(status)?;
        Ok(Response::new(wire::CancelOrderResponse {
            order: Some(view(order)),
        }))
    }
}

fn order_id(text: &str) -> Result<OrderId, RpcStatus> {
    text.parse().map_err(|_| RpcStatus::not_found("no such order"))
}

fn status(error: ServiceError) -> RpcStatus {
    match &error {
        ServiceError::Invalid(errors) => {
            let all: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect();
            RpcStatus::invalid_argument(all.join("; "))
        }
        ServiceError::NotFound => RpcStatus::not_found(error.to_string()),
        ServiceError::TooLate(_) => RpcStatus::failed_precondition(error.to_string()),
        ServiceError::KeyReused => RpcStatus::already_exists(error.to_string()),
        ServiceError::Store(store) if store.is_transient() => RpcStatus::unavailable("too much to do, try again"),
        ServiceError::Store(_) => {
            tracing::error!(error = %chain(&error), "a call failed");
            RpcStatus::internal("the call failed, and not by your fault")
        }
    }
}

fn view(order: Order) -> wire::Order {
    let status = match order.saga.status {
        Status::Pending => wire::OrderStatus::Pending,
        Status::Paid => wire::OrderStatus::Paid,
        Status::Delivered => wire::OrderStatus::Delivered,
        Status::Cancelled => wire::OrderStatus::Cancelled,
        Status::Refunded => wire::OrderStatus::Refunded,
        Status::Failed => wire::OrderStatus::Failed,
    };
    let items = order.items.into_iter().map(|item| wire::Item {
        sku: item.sku,
        quantity: item.quantity,
        unit_price_cents: item.unit_price_cents.cast_signed(),
    });
    wire::Order {
        id: order.id.to_string(),
        status: status.into(),
        items: items.collect(),
        currency: order.currency,
        address: order.address,
        total_cents: order.total_cents.cast_signed(),
        reason: order
            .saga
            .reason
            .map(|reason| reason.as_str().to_owned())
            .unwrap_or_default(),
        created_at: order.created_at.to_string(),
        updated_at: order.updated_at.to_string(),
    }
}
