//! Calls to the service as its clients make them, for all of its tests. No test here.

use chassis::trial::{Instance, until_async};
use proto::notifications::v1::notifications_client::NotificationsClient;
use proto::notifications::v1::{
    DeadLetter, Event, GetStatsRequest, GetStatsResponse, ListDeadLettersRequest, ListNotificationsRequest,
    Notification, PublishEventRequest, PublishEventResponse,
};
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_notifications");

pub(crate) type Client = NotificationsClient<Channel>;

pub(crate) fn client(service: &Instance) -> Client {
    NotificationsClient::new(service.channel())
}

pub(crate) fn event(subject: &str) -> Event {
    Event {
        event_id: Uuid::new_v4().to_string(),
        r#type: "order.paid".into(),
        version: 1,
        subject: subject.into(),
        source: "orders".into(),
        occurred_at: "2026-11-21T10:00:00Z".into(),
        payload: br#"{"total_cents":1250,"currency":"EUR"}"#.to_vec(),
    }
}

pub(crate) async fn publish(client: &mut Client, event: &Event) -> Result<PublishEventResponse, Status> {
    client
        .publish_event(PublishEventRequest {
            event: Some(event.clone()),
        })
        .await
        .map(tonic::Response::into_inner)
}

pub(crate) async fn stats(client: &mut Client) -> GetStatsResponse {
    client.get_stats(GetStatsRequest {}).await.unwrap().into_inner()
}

/// Waits until nothing is pending.
pub(crate) async fn settled(client: &Client) -> GetStatsResponse {
    until_async("nothing is pending", || {
        let mut client = client.clone();
        async move {
            let stats = stats(&mut client).await;
            assert_eq!(stats.events, stats.pending + stats.processed + stats.dead_letters);
            assert_eq!(stats.notifications, stats.processed);
            (stats.pending == 0).then_some(stats)
        }
    })
    .await
}

pub(crate) async fn notifications(client: &mut Client) -> Vec<Notification> {
    let (mut token, mut all) = (String::new(), Vec::new());
    loop {
        let request = ListNotificationsRequest {
            page_size: 100,
            page_token: token,
            ..Default::default()
        };
        let page = client.list_notifications(request).await.unwrap().into_inner();
        all.extend(page.notifications);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

pub(crate) async fn dead_letters(client: &mut Client) -> Vec<DeadLetter> {
    client
        .list_dead_letters(ListDeadLettersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .dead_letters
}
