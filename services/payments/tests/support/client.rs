//! Calls to the service as its clients make them, for all of its tests. No test here.

use chassis::trial::Instance;
use proto::payments::v1::payments_client::PaymentsClient;
use proto::payments::v1::refund_payment_request::Target;
use proto::payments::v1::{Charge, ListChargesRequest, ProcessPaymentRequest, RefundPaymentRequest};
use tonic::transport::Channel;

pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_payments");

pub(crate) type Client = PaymentsClient<Channel>;

pub(crate) fn client(service: &Instance) -> Client {
    PaymentsClient::new(service.channel())
}

pub(crate) fn payment(order: &str, key: &str, amount_cents: i64) -> ProcessPaymentRequest {
    ProcessPaymentRequest {
        order_id: order.into(),
        idempotency_key: key.into(),
        amount_cents,
        currency: "EUR".into(),
    }
}

pub(crate) fn refund(order: &str, key: &str) -> RefundPaymentRequest {
    RefundPaymentRequest {
        target: Some(Target::OrderId(order.into())),
        idempotency_key: key.into(),
    }
}

/// All charges, oldest first.
pub(crate) async fn charges(client: &mut Client) -> Vec<Charge> {
    let (mut token, mut charges) = (String::new(), Vec::new());
    loop {
        let request = ListChargesRequest {
            page_size: 1000,
            page_token: token,
            ..Default::default()
        };
        let page = client.list_charges(request).await.unwrap().into_inner();
        charges.extend(page.charges);
        token = page.next_page_token;
        if token.is_empty() {
            return charges;
        }
    }
}
