//! `opsctl.notifications.v1.Notifications`: from messages to the store and back. Events take effect in `worker`.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::request::{Invalid, Pages};
use jiff::Timestamp;
use proto::notifications::v1::notifications_server::{self, NotificationsServer};
use proto::notifications::v1::{
    DeadLetter as WireLetter, Event as WireEvent, EventState as WireState, GetStatsRequest, GetStatsResponse,
    ListDeadLettersRequest, ListDeadLettersResponse, ListNotificationsRequest, ListNotificationsResponse,
    Notification as WireNotification, PublishEventRequest, PublishEventResponse, ReplayDeadLetterRequest,
    ReplayDeadLetterResponse,
};
use telemetry::{Metrics, catalogue};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::event::{Event, Failure, MAX_PAYLOAD, Reason, render};
use crate::store::{Accepted, EventState, Store, StoreError};
use crate::worker::Bell;

/// The longest message that is read: the payload and room for the other fields.
const MAX_MESSAGE: usize = MAX_PAYLOAD + (16 << 10);
/// Page tokens are places in the list.
const PAGES: Pages = Pages::new("n1.");

/// The gRPC service over `store`; `bell` tells the worker of new work.
pub fn server(store: Arc<dyn Store>, bell: Bell, metrics: &Metrics) -> NotificationsServer<Notifications> {
    // From the start, so that the first of each is seen as an increase.
    for outcome in ["accepted", "duplicate", "unsupported", "error"] {
        metrics.counter(catalogue::NOTIFICATIONS_EVENTS_TOTAL, [outcome]);
    }
    metrics.counter(catalogue::DEAD_LETTERS_REPLAYED_TOTAL, []);
    NotificationsServer::new(Notifications {
        store,
        bell,
        metrics: metrics.clone(),
    })
    .max_decoding_message_size(MAX_MESSAGE)
}

/// The implementation behind [`server`].
pub struct Notifications {
    store: Arc<dyn Store>,
    bell: Bell,
    metrics: Metrics,
}

#[async_trait]
impl notifications_server::Notifications for Notifications {
    async fn publish_event(
        &self,
        request: Request<PublishEventRequest>,
    ) -> Result<Response<PublishEventResponse>, Status> {
        let asked = request.into_inner();
        let told = asked
            .event
            .as_ref()
            .map(|event| (event.event_id.clone(), event.r#type.clone()));
        let result = self.publish(asked).await;
        let outcome = match &result {
            Err(_) => "error",
            Ok(accepted) if accepted.duplicate => "duplicate",
            Ok(accepted) if accepted.state == EventState::Dead => "unsupported",
            Ok(_) => "accepted",
        };
        self.metrics
            .counter(catalogue::NOTIFICATIONS_EVENTS_TOTAL, [outcome])
            .inc();
        let Accepted { duplicate, state } = result?;
        let (event_id, event_type) = told.unwrap_or_default();
        tracing::info!(event_id, event_type, outcome, "event taken");
        if state == EventState::Pending {
            self.bell.ring();
        }
        Ok(Response::new(PublishEventResponse {
            duplicate,
            state: wire_state(state).into(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let asked = request.into_inner();
        let (after, limit) = PAGES.place(&asked.page_token, asked.page_size)?;
        let page = self.store.dead_letters(after, limit).await.map_err(status)?;
        let dead_letters = page
            .items
            .into_iter()
            .map(|letter| WireLetter {
                event: Some(wire_event(letter.event)),
                reason: letter.reason,
                detail: letter.detail,
                attempts: letter.attempts,
                dead_since: letter.dead_since.to_string(),
            })
            .collect();
        Ok(Response::new(ListDeadLettersResponse {
            dead_letters,
            next_page_token: PAGES.token(page.next),
        }))
    }

    async fn replay_dead_letter(
        &self,
        request: Request<ReplayDeadLetterRequest>,
    ) -> Result<Response<ReplayDeadLetterResponse>, Status> {
        let id = uuid(&request.into_inner().event_id)?;
        self.store.replay(id, chassis::now()).await.map_err(status)?;
        self.metrics.counter(catalogue::DEAD_LETTERS_REPLAYED_TOTAL, []).inc();
        self.bell.ring();
        Ok(Response::new(ReplayDeadLetterResponse {
            state: WireState::Pending.into(),
        }))
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let asked = request.into_inner();
        let (after, limit) = PAGES.place(&asked.page_token, asked.page_size)?;
        let subject = Some(asked.subject).filter(|subject| !subject.is_empty());
        let page = self.store.notifications(after, limit, subject).await.map_err(status)?;
        let notifications = page
            .items
            .into_iter()
            .map(|notification| WireNotification {
                notification_id: notification.id.to_string(),
                event_id: notification.event_id.to_string(),
                r#type: notification.kind,
                subject: notification.subject,
                text: notification.text,
                created_at: notification.created_at.to_string(),
            })
            .collect();
        Ok(Response::new(ListNotificationsResponse {
            notifications,
            next_page_token: PAGES.token(page.next),
        }))
    }

    async fn get_stats(&self, _: Request<GetStatsRequest>) -> Result<Response<GetStatsResponse>, Status> {
        let stats = self.store.stats().await.map_err(status)?;
        Ok(Response::new(GetStatsResponse {
            events: stats.events,
            pending: stats.pending,
            processed: stats.processed,
            dead_letters: stats.dead,
            notifications: stats.notifications,
            duplicates: stats.duplicates,
        }))
    }
}

impl Notifications {
    async fn publish(&self, asked: PublishEventRequest) -> Result<Accepted, Status> {
        let wire = asked.event.ok_or_else(|| Invalid::new("event", "given"))?;
        let event = Event {
            id: uuid(&wire.event_id)?,
            kind: wire.r#type,
            version: wire.version,
            subject: wire.subject,
            source: wire.source,
            occurred_at: wire
                .occurred_at
                .parse::<Timestamp>()
                .map_err(|_| Invalid::new("occurred_at", "an RFC 3339 time"))?,
            payload: wire.payload,
        }
        .check()?;
        // Told at once, so that whoever publishes something new sees that nobody here understands it yet.
        let dead = match render(&event) {
            Err(Failure::Lasting(reason @ (Reason::UnknownType | Reason::UnsupportedVersion), detail)) => {
                Some((reason, detail))
            }
            _ => None,
        };
        self.store.accept(event, dead, chassis::now()).await.map_err(status)
    }
}

fn uuid(text: &str) -> Result<Uuid, Invalid> {
    text.parse().map_err(|_| Invalid::new("event_id", "a UUID"))
}

fn wire_event(event: Event) -> WireEvent {
    WireEvent {
        event_id: event.id.to_string(),
        r#type: event.kind,
        version: event.version,
        subject: event.subject,
        source: event.source,
        occurred_at: event.occurred_at.to_string(),
        payload: event.payload,
    }
}

fn wire_state(state: EventState) -> WireState {
    match state {
        EventState::Pending => WireState::Pending,
        EventState::Processed => WireState::Processed,
        EventState::Dead => WireState::DeadLetter,
    }
}

fn status(error: StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::IdReused => Status::already_exists(message),
        StoreError::NotDead => Status::failed_precondition(message),
        StoreError::NotFound => Status::not_found(message),
        StoreError::Database(error) => error.into(),
    }
}
