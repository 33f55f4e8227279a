//! The list itself. To add a metric, add one line to the group that it belongs to:
//! `kind NAME(number of labels) "scraped_name" Unit [labels] "Help.";`, where a label is `name` or `name = VALUES`, and a
//! histogram may say its buckets: `Seconds in DATABASE_BUCKETS`. `One, shared` is a number that all replicas read in
//! the same place. It is not where values are counted.

use crate::{Counter, Gauge, Histogram, Kind, Label, Metric, Scope, Unit, Values};

/// Bounds of request durations in seconds, 5 ms to 10 s.
pub const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bounds of what a database does, in seconds: 100 µs to 10 s.
pub const DATABASE_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// Bounds of what goes over many steps and waits in between, in seconds: 10 ms to an hour.
pub const PROCESS_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Bounds in milliseconds, as OpenTelemetry has them when nobody says which.
pub const MILLISECOND_BUCKETS: &[f64] = &[
    0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0,
];

const NO_BUCKETS: &[f64] = &[];

macro_rules! values {
    () => {
        Values::Bounded
    };
    ($values:expr) => {
        Values::Closed($values)
    };
}

macro_rules! buckets {
    (counter) => {
        NO_BUCKETS
    };
    (gauge) => {
        NO_BUCKETS
    };
    (histogram) => {
        DURATION_BUCKETS
    };
    (histogram, $buckets:ident) => {
        $buckets
    };
}

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (histogram) => {
        Kind::Histogram
    };
}

macro_rules! scope {
    () => {
        Scope::Instance
    };
    (shared) => {
        Scope::Shared
    };
}

macro_rules! handle_type {
    (counter, $labels:literal) => { Counter<$labels> };
    (gauge, $labels:literal) => { Gauge<$labels> };
    (histogram, $labels:literal) => { Histogram<$labels> };
}

macro_rules! metrics {
    ($($kind:ident $const:ident($count:literal) $name:literal $unit:ident $(in $buckets:ident)? $(, $scope:ident)? [$($label:ident $(= $values:expr)?),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $const: handle_type!($kind, $count) = <handle_type!($kind, $count)>::of(&Metric {
                name: $name,
                kind: kind!($kind),
                unit: Unit::$unit,
                help: $help,
                labels: &[$(Label { name: stringify!($label), values: values!($($values)?) }),*],
                buckets: buckets!($kind $(, $buckets)?),
                scope: scope!($($scope)?),
            });
        )*

        /// Every metric, in the order of the list.
        pub const ALL: &[&Metric] = &[$($const.metric()),*];
    };
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER",
];
const GRPC_TYPES: &[&str] = &["unary", "client_stream", "server_stream", "bidi_stream"];
/// gRPC's codes by number, as go-grpc-prometheus writes them.
pub const GRPC_CODES: &[&str; 17] = &[
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// gRPC's codes by number, as OpenTelemetry writes them.
pub const RPC_CODES: &[&str; 17] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const RPC_NUMBERS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];
const BREAKER_STATES: &[&str] = &["closed", "open", "half_open", "forced_open", "forced_closed"];
const BREAKER_OUTCOMES: &[&str] = &[
    "success",
    "failure",
    "slow",
    "ignored",
    "cancelled",
    "stale",
    "rejected",
    "spared",
];
const RETRY_REASONS: &[&str] = &["not_sent", "transient", "timeout", "overload"];
const FALLBACK_REASONS: &[&str] = &["rejected", "timeout", "failure"];
const PRIORITIES: &[&str] = &["critical", "high", "normal", "low"];
const MESSAGE_OUTCOMES: &[&str] = &["acked", "nacked", "dead_lettered", "paused"];
const BOOLEANS: &[&str] = &["false", "true"];
const TIMEOUT_SCOPES: &[&str] = &["attempt", "total"];
const SINKS: &[&str] = &[
    "stdout",
    "loki",
    "otlp_traces",
    "otlp_metrics",
    "otlp_logs",
    "traces_file",
];
const REJECT_REASONS: &[&str] = &[
    "bad_request",
    "too_large",
    "too_old",
    "unauthorized",
    "partial",
    "refused",
];
const DROP_REASONS: &[&str] = &[
    "queue_full",
    "closed",
    "deadline",
    "unanswered",
    "write_failed",
    "unreachable",
    "too_large",
    "spool_full",
    "spool_failed",
];
const PROPAGATION_REASONS: &[&str] = &["traceparent", "tracestate", "correlation_id", "baggage"];
const LEVELS: &[&str] = &["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
const HEALTH_STATES: &[&str] = &["starting", "ready", "degraded", "not_ready", "draining", "stopped"];
const CHECK_STATES: &[&str] = &["pass", "warn", "fail"];
/// How a run of a schedule ends.
const RUN_OUTCOMES: &[&str] = &["succeeded", "partial", "failed", "locked", "interrupted", "lost"];
const RESULTS: &[&str] = &["ok", "error"];
const SAGA_STEPS: &[&str] = &["payment", "delivery", "refund", "cancel", "notification"];
const SAGA_OUTCOMES: &[&str] = &["ok", "refused", "retry", "failed"];
const ORDER_STATUSES: &[&str] = &["pending", "paid", "delivered", "cancelled", "refunded", "failed"];

const PROOF_VERDICTS: &[&str] = &["proved", "not_proved", "inconclusive"];
const RECOVERY_OBJECTIVES: &[&str] = &["rpo", "rto", "proof"];

metrics! {
    // Servers.
    histogram HTTP_SERVER_REQUEST_DURATION_SECONDS(3) "http_server_request_duration_seconds" Seconds [http_request_method = METHODS, http_route, http_response_status_code] "Time from the arrival of an HTTP request to the end of its response.";
    counter GRPC_SERVER_STARTED_TOTAL(3) "grpc_server_started_total" One [grpc_type = GRPC_TYPES, grpc_service, grpc_method] "Calls that the gRPC server began.";
    counter GRPC_SERVER_HANDLED_TOTAL(4) "grpc_server_handled_total" One [grpc_type = GRPC_TYPES, grpc_service, grpc_method, grpc_code = GRPC_CODES] "Calls that the gRPC server ended, by the status that the caller was sent.";
    histogram GRPC_SERVER_HANDLING_SECONDS(3) "grpc_server_handling_seconds" Seconds [grpc_type = GRPC_TYPES, grpc_service, grpc_method] "Time from the arrival of a gRPC call to the end of its last message.";

    histogram RPC_SERVER_CALL_DURATION_SECONDS(3) "rpc_server_call_duration_seconds" Seconds [rpc_system_name = &["grpc"], rpc_method, rpc_response_status_code = RPC_CODES] "The same by OpenTelemetry's newer names; only when asked for.";
    histogram RPC_SERVER_DURATION_MILLISECONDS(4) "rpc_server_duration_milliseconds" Milliseconds in MILLISECOND_BUCKETS [rpc_system = &["grpc"], rpc_service, rpc_method, rpc_grpc_status_code = RPC_NUMBERS] "The same by OpenTelemetry's names up to version 1.37; only when asked for.";

    // Clients.
    histogram HTTP_CLIENT_REQUEST_DURATION_SECONDS(4) "http_client_request_duration_seconds" Seconds [http_request_method = METHODS, server_address, http_response_status_code, error_type] "Time from the start of an HTTP request to a peer to the end of its response.";
    counter GRPC_CLIENT_STARTED_TOTAL(3) "grpc_client_started_total" One [grpc_type = GRPC_TYPES, grpc_service, grpc_method] "Calls to peers that the gRPC client began.";
    counter GRPC_CLIENT_HANDLED_TOTAL(4) "grpc_client_handled_total" One [grpc_type = GRPC_TYPES, grpc_service, grpc_method, grpc_code = GRPC_CODES] "Calls to peers that ended, by the status that the caller got.";
    histogram GRPC_CLIENT_HANDLING_SECONDS(3) "grpc_client_handling_seconds" Seconds [grpc_type = GRPC_TYPES, grpc_service, grpc_method] "Time from the start of a gRPC call to a peer to the end of its last message.";

    // Databases.
    histogram DB_CLIENT_OPERATION_DURATION_SECONDS(4) "db_client_operation_duration_seconds" Seconds in DATABASE_BUCKETS [db_system_name, db_operation_name, db_collection_name, error_type] "Time that a database call took, with its wait for a connection; error_type is empty when it went well.";
    gauge DB_POOL_CONNECTIONS(2) "db_pool_connections" One [pool, state = &["used", "idle"]] "Connections of a pool that are open.";
    gauge DB_POOL_CONNECTIONS_MAX(1) "db_pool_connections_max" One [pool] "Connections that a pool may have.";
    gauge DB_POOL_WAITERS(1) "db_pool_waiters" One [pool] "Callers that wait for a connection.";
    histogram DB_POOL_WAIT_SECONDS(1) "db_pool_wait_seconds" Seconds in DATABASE_BUCKETS [pool] "Time that a caller waited for a connection.";
    counter DB_POOL_TIMEOUTS_TOTAL(1) "db_pool_timeouts_total" One [pool] "Callers that got no connection in time.";

    // Policies around calls to dependencies.
    gauge CIRCUIT_BREAKER_STATE(2) "circuit_breaker_state" One [name, state = BREAKER_STATES] "1 for the state that the breaker is in, 0 for all others.";
    counter CIRCUIT_BREAKER_TRANSITIONS_TOTAL(3) "circuit_breaker_transitions_total" One [name, from = BREAKER_STATES, to = BREAKER_STATES] "Changes of a breaker's state.";
    counter CIRCUIT_BREAKER_CALLS_TOTAL(2) "circuit_breaker_calls_total" One [name, outcome = BREAKER_OUTCOMES] "Calls that a breaker saw, by what became of them.";
    gauge CIRCUIT_BREAKER_FAILURE_RATIO(1) "circuit_breaker_failure_ratio" Ratio [name] "Share of failures in the breaker's window.";
    counter RETRY_ATTEMPTS_TOTAL(2) "retry_attempts_total" One [name, reason = RETRY_REASONS] "Attempts beyond the first.";
    counter RETRY_BUDGET_EXHAUSTED_TOTAL(1) "retry_budget_exhausted_total" One [name] "Retries not made because the budget was spent.";
    gauge RETRY_BUDGET_RATIO(1) "retry_budget_ratio" Ratio [name] "Retries per request in the budget's window.";
    gauge RETRY_BUDGET_LEFT(1) "retry_budget_left" One [name] "Retries that could be made now.";
    counter TIMEOUTS_TOTAL(2) "timeouts_total" One [name, scope = TIMEOUT_SCOPES] "Calls cut off by a time limit.";
    gauge BULKHEAD_IN_FLIGHT(1) "bulkhead_in_flight" One [name] "Calls inside the bulkhead.";
    gauge BULKHEAD_QUEUED(1) "bulkhead_queued" One [name] "Calls waiting for a place in the bulkhead.";
    gauge BULKHEAD_LIMIT(1) "bulkhead_limit" One [name] "Places in the bulkhead.";
    counter BULKHEAD_REJECTED_TOTAL(1) "bulkhead_rejected_total" One [name] "Calls that the bulkhead refused.";
    gauge CONCURRENCY_LIMIT(1) "concurrency_limit" One [name] "Calls at one time that the limit found by itself allows.";
    gauge CONCURRENCY_LIMIT_IN_FLIGHT(1) "concurrency_limit_in_flight" One [name] "Calls inside that limit.";
    counter CONCURRENCY_LIMIT_REJECTED_TOTAL(1) "concurrency_limit_rejected_total" One [name] "Calls that it refused.";
    counter CONCURRENCY_LIMIT_DROPPED_TOTAL(1) "concurrency_limit_dropped_total" One [name] "Timeouts and overloads that lowered it.";
    counter RATE_LIMIT_REJECTED_TOTAL(1) "rate_limit_rejected_total" One [name] "Calls that a rate limit refused.";
    gauge RATE_LIMIT_KEYS(1) "rate_limit_keys" One [name] "Keys that a rate limit by key remembers.";
    counter RATE_LIMIT_OVERFLOWED_TOTAL(1) "rate_limit_overflowed_total" One [name] "Calls of keys for which a rate limit by key had no room.";
    counter HEDGES_TOTAL(2) "hedges_total" One [name, won = BOOLEANS] "Attempts beside a slow one, by whether they answered first.";
    counter SHED_TOTAL(2) "shed_total" One [name, priority = PRIORITIES] "Requests refused because there was too much to do.";
    gauge SHED_IN_FLIGHT(1) "shed_in_flight" One [name] "Requests inside the load shedding.";
    gauge SHED_LIMIT(1) "shed_limit" One [name] "Requests at one time that it allows the most important ones; absent while it is off.";
    counter THROTTLE_REJECTED_TOTAL(1) "throttle_rejected_total" One [name] "Calls that a throttle refused by chance.";
    gauge THROTTLE_REJECT_RATIO(1) "throttle_reject_ratio" Ratio [name] "Probability with which it refuses the next call.";
    counter FALLBACK_TOTAL(2) "fallback_total" One [name, reason = FALLBACK_REASONS] "Calls that a fallback answered, by what was wrong.";
    gauge STALE_ENTRIES(1) "stale_entries" One [name] "Answers that a cache of stale answers remembers.";
    counter STALE_MISSED_TOTAL(1) "stale_missed_total" One [name] "Calls without an answer for which nothing was remembered.";
    counter CONSUMER_MESSAGES_TOTAL(2) "consumer_messages_total" One [name, outcome = MESSAGE_OUTCOMES] "Deliveries that a consumer handled, by what the broker was told.";
    gauge CONSUMER_PAUSED(1) "consumer_paused" One [name] "1 while a consumer takes no messages, else 0.";
    gauge FAULTS_ACTIVE(1) "faults_active" One [name] "Faults that are put into a policy's calls on purpose.";

    // Health.
    gauge HEALTH_STATUS(1) "health_status" One [status = HEALTH_STATES] "1 for the state that the service is in, 0 for all others.";
    gauge HEALTH_CHECK_UP(1) "health_check_up" One [check] "1 while the check passes or warns, else 0.";
    gauge HEALTH_CHECK_DURATION_SECONDS(1) "health_check_duration_seconds" Seconds [check] "Time that the last run of the check took.";
    gauge HEALTH_CHECK_LAST_SUCCESS_TIMESTAMP_SECONDS(1) "health_check_last_success_timestamp_seconds" Seconds [check] "Unix time of the check's last success, 0 before the first.";
    counter HEALTH_TRANSITIONS_TOTAL(2) "health_transitions_total" One [check, to = CHECK_STATES] "Changes of a check's state.";

    // Telemetry about itself.
    counter TELEMETRY_LOG_LINES_TOTAL(1) "telemetry_log_lines_total" One [level = LEVELS] "Log lines by level.";
    counter TELEMETRY_LOG_LINES_SUPPRESSED_TOTAL(0) "telemetry_log_lines_suppressed_total" One [] "Log lines that a rate limit left out.";
    counter TELEMETRY_EMITTED_TOTAL(1) "telemetry_emitted_total" One [sink = SINKS] "Items handed to a sink, and found in its spool at the start; equal to delivered + rejected + dropped + unknown + telemetry_spool_items once it is idle.";
    counter TELEMETRY_DELIVERED_TOTAL(1) "telemetry_delivered_total" One [sink = SINKS] "Items that a sink wrote or had acknowledged.";
    counter TELEMETRY_REJECTED_TOTAL(2) "telemetry_rejected_total" One [sink = SINKS, reason = REJECT_REASONS] "Items that the receiver refused for good.";
    counter TELEMETRY_DROPPED_TOTAL(2) "telemetry_dropped_total" One [sink = SINKS, reason = DROP_REASONS] "Items that were lost here.";
    counter TELEMETRY_SPOOLED_TOTAL(1) "telemetry_spooled_total" One [sink = SINKS] "Items that were put into a sink's spool, and found in it at the start.";
    counter TELEMETRY_UNKNOWN_TOTAL(1) "telemetry_unknown_total" One [sink = SINKS] "Items handed to a client that does not tell what became of them.";
    gauge TELEMETRY_SPOOL_ITEMS(1) "telemetry_spool_items" One [sink = SINKS] "Items that lie in a sink's spool.";
    gauge TELEMETRY_QUEUE_BYTES(1) "telemetry_queue_bytes" Bytes [sink = SINKS] "Bytes waiting for a sink.";
    histogram TELEMETRY_EXPORT_DURATION_SECONDS(1) "telemetry_export_duration_seconds" Seconds [sink = SINKS] "Time that one write or request of a sink took.";
    counter TELEMETRY_PROPAGATION_INVALID_TOTAL(1) "telemetry_propagation_invalid_total" One [reason = PROPAGATION_REASONS] "Incoming headers that were refused.";
    counter TELEMETRY_METRIC_CARDINALITY_OVERFLOW_TOTAL(0) "telemetry_metric_cardinality_overflow_total" One [] "Observations put under _overflow because a metric had too many series or a value outside its list.";
    gauge BUILD_INFO(2) "build_info" One [service, version] "Always 1; says what runs.";
    counter PANICS_TOTAL(0) "panics_total" One [] "Panics in any thread.";
    gauge PROCESS_START_TIME_SECONDS(0) "process_start_time_seconds" Seconds [] "Unix time at which the process began.";
    counter PROCESS_CPU_SECONDS_TOTAL(0) "process_cpu_seconds_total" Seconds [] "User and system CPU time of the process.";
    gauge PROCESS_RESIDENT_MEMORY_BYTES(0) "process_resident_memory_bytes" Bytes [] "Memory of the process that is in RAM.";
    gauge PROCESS_OPEN_FDS(0) "process_open_fds" One [] "Open file descriptors of the process.";
    gauge PROCESS_MAX_FDS(0) "process_max_fds" One [] "Limit of open file descriptors of the process.";

    // The async runtime.
    gauge TOKIO_WORKERS(1) "tokio_workers" One [runtime] "Worker threads of a runtime.";
    gauge TOKIO_ALIVE_TASKS(1) "tokio_alive_tasks" One [runtime] "Tasks of a runtime that have not ended.";
    gauge TOKIO_GLOBAL_QUEUE_DEPTH(1) "tokio_global_queue_depth" One [runtime] "Tasks that wait in a runtime's global queue.";
    counter TOKIO_WORKER_BUSY_SECONDS_TOTAL(2) "tokio_worker_busy_seconds_total" Seconds [runtime, worker] "Time that a worker thread was busy.";
    counter TOKIO_WORKER_PARKS_TOTAL(2) "tokio_worker_parks_total" One [runtime, worker] "Times that a worker thread went to sleep.";

    // Reference services.
    counter ORDERS_CREATED_TOTAL(0) "orders_created_total" One [] "Orders that were stored and answered with 201.";
    counter ORDERS_REPLAYED_TOTAL(0) "orders_replayed_total" One [] "Repeated requests answered from their idempotency key.";
    counter ORDERS_FINISHED_TOTAL(1) "orders_finished_total" One [status = ORDER_STATUSES] "Orders that reached a final status.";
    gauge ORDERS_OPEN(0) "orders_open" One, shared [] "Orders without a final status.";
    counter SAGA_STEPS_TOTAL(2) "saga_steps_total" One [step = SAGA_STEPS, outcome = SAGA_OUTCOMES] "Steps of order sagas.";
    histogram SAGA_DURATION_SECONDS(1) "saga_duration_seconds" Seconds in PROCESS_BUCKETS [status = ORDER_STATUSES] "Time from the order's arrival to its final status.";
    gauge OUTBOX_PENDING(0) "outbox_pending" One, shared [] "Events in the outbox that no consumer has acknowledged.";
    gauge OUTBOX_OLDEST_AGE_SECONDS(0) "outbox_oldest_age_seconds" Seconds, shared [] "Age of the oldest event in the outbox, 0 when empty.";
    counter OUTBOX_RELAYED_TOTAL(1) "outbox_relayed_total" One [result = RESULTS] "Events that the relay sent.";
    counter RECONCILIATION_RUNS_TOTAL(1) "reconciliation_runs_total" One [result = RESULTS] "Comparisons of charges with orders.";
    counter RECONCILIATION_REFUNDS_TOTAL(0) "reconciliation_refunds_total" One [] "Charges refunded because their order does not exist.";
    counter PAYMENTS_PROCESSED_TOTAL(1) "payments_processed_total" One [outcome = &["charged", "declined", "replayed", "error"]] "Payment requests by outcome.";
    counter PAYMENTS_REFUNDED_TOTAL(1) "payments_refunded_total" One [outcome = &["refunded", "replayed", "not_found", "error"]] "Refund requests by outcome.";
    counter PAYMENTS_CHARGED_CENTS_TOTAL(0) "payments_charged_cents_total" One [] "Sum of all charges in cents.";
    counter NOTIFICATIONS_EVENTS_TOTAL(1) "notifications_events_total" One [outcome = &["accepted", "duplicate", "unsupported", "error"]] "Events received by outcome.";
    counter NOTIFICATIONS_SENT_TOTAL(1) "notifications_sent_total" One [outcome = &["sent", "retry", "dead"]] "Attempts to deliver a notification.";
    gauge DEAD_LETTERS(0) "dead_letters" One, shared [] "Events that wait for a person.";
    counter DEAD_LETTERS_REPLAYED_TOTAL(0) "dead_letters_replayed_total" One [] "Dead letters that were sent again.";
    counter IDENTITY_REGISTRATIONS_TOTAL(1) "identity_registrations_total" One [outcome = &["created", "exists", "invalid", "error"]] "Registrations by outcome.";
    counter IDENTITY_LOGINS_TOTAL(1) "identity_logins_total" One [outcome = &["ok", "refused", "error"]] "Logins by outcome.";
    counter IDENTITY_KEY_RELOADS_TOTAL(1) "identity_key_reloads_total" One [result = RESULTS] "Times the signing keys were read again.";

    // Schedules; `opsctl schedule run` writes them to a file for a collector of text files.
    counter SCHEDULE_RUNS_TOTAL(2) "schedule_runs_total" One [schedule, outcome = RUN_OUTCOMES] "Runs of a schedule's job that ended.";
    counter SCHEDULE_MISSED_RUNS_TOTAL(1) "schedule_missed_runs_total" One [schedule] "Times at which a job was due and had no run of its own.";
    gauge SCHEDULE_LAST_SUCCESS_TIMESTAMP_SECONDS(1) "schedule_last_success_timestamp_seconds" Seconds [schedule] "Unix time at which the last run that went well ended.";
    gauge SCHEDULE_LAST_DURATION_SECONDS(1) "schedule_last_duration_seconds" Seconds [schedule] "Time that the last run took.";
    gauge SCHEDULE_NEXT_START_TIMESTAMP_SECONDS(1) "schedule_next_start_timestamp_seconds" Seconds [schedule] "Unix time at which the next run is due to begin.";
    counter CLEANUP_ROWS_DELETED_TOTAL(1) "cleanup_rows_deleted_total" One [schedule] "Rows that a cleanup deleted.";

    // The local proxy.
    counter PROXY_REQUESTS_TOTAL(3) "proxy_requests_total" One [service, version, code] "Requests that the proxy answered.";
    counter PROXY_ERRORS_TOTAL(2) "proxy_errors_total" One [service, version] "Requests that count as errors for the service's objective.";
    counter PROXY_OVER_OBJECTIVE_TOTAL(2) "proxy_over_objective_total" One [service, version] "Requests slower than the service's latency objective.";
    histogram PROXY_REQUEST_DURATION_SECONDS(2) "proxy_request_duration_seconds" Seconds [service, version] "Time that a request spent in the proxy and behind it.";
    gauge PROXY_IN_FLIGHT(1) "proxy_in_flight" One [service] "Requests that the proxy has not answered yet.";
    counter PROXY_HELD_TOTAL(1) "proxy_held_total" One [service] "Requests answered with 503 while the service was held down.";
    gauge PROXY_WEIGHT_RATIO(2) "proxy_weight_ratio" Ratio [service, version] "Share of traffic that a version is granted.";
    counter PROXY_FAULTS_INJECTED_TOTAL(2) "proxy_faults_injected_total" One [service, kind = &["latency", "error", "reset", "blackhole"]] "Requests that a fault was put on.";

    // Backups and their proof, written by `opsctl recovery status`.
    gauge OPSCTL_BACKUP_LAST_SUCCESS_TIMESTAMP_SECONDS(2) "opsctl_backup_last_success_timestamp_seconds" Seconds [environment, datastore] "Unix time of the last whole snapshot of a datastore.";
    gauge OPSCTL_BACKUP_LAST_TIMESTAMP_SECONDS(2) "opsctl_backup_last_timestamp_seconds" Seconds [environment, datastore] "Unix time of its last snapshot, whole or not.";
    gauge OPSCTL_BACKUP_LAST_PARTIAL(2) "opsctl_backup_last_partial" One [environment, datastore] "1 when something could not be read for its last snapshot, else 0.";
    gauge OPSCTL_BACKUP_SIZE_BYTES(2) "opsctl_backup_size_bytes" Bytes [environment, datastore] "Size of the files in its last snapshot.";
    gauge OPSCTL_BACKUP_SNAPSHOTS(2) "opsctl_backup_snapshots" One [environment, datastore] "Snapshots that there are of it.";
    gauge OPSCTL_BACKUP_COMPLETE_UNTIL_TIMESTAMP_SECONDS(2) "opsctl_backup_complete_until_timestamp_seconds" Seconds [environment, datastore] "Unix time, by the datastore's clock, up to which everything that was acknowledged can be restored, where changes are shipped or a log is received between snapshots.";
    gauge OPSCTL_LOG_ARCHIVED_POSITION_BYTES(2) "opsctl_log_archived_position_bytes" Bytes [environment, datastore] "Position (LSN) up to which the log of a PostgreSQL is archived.";
    gauge OPSCTL_LOG_LOST_GAPS(2) "opsctl_log_lost_gaps" One [environment, datastore] "Gaps in its archived log that nothing can fill and no base backup was taken after.";
    gauge OPSCTL_LOG_RECEIVING(2) "opsctl_log_receiving" One [environment, datastore] "1 while somebody receives its log by the replication slot, else 0; absent where there is none, and while the server cannot be asked.";
    gauge OPSCTL_LOG_SLOT_LOST(2) "opsctl_log_slot_lost" One [environment, datastore] "1 when the server has given up on the replication slot, else 0; absent where there is none, and while the server cannot be asked.";
    gauge OPSCTL_LOG_SLOT_KEPT_BYTES(2) "opsctl_log_slot_kept_bytes" Bytes [environment, datastore] "Log that the server keeps for the replication slot: written, and not in the repository yet.";
    gauge OPSCTL_LOG_SLOT_SAFE_BYTES(2) "opsctl_log_slot_safe_bytes" Bytes [environment, datastore] "Log that may be written before the server gives up on the replication slot; absent where there is no limit.";
    gauge OPSCTL_PROOF_LAST_SUCCESS_TIMESTAMP_SECONDS(2) "opsctl_proof_last_success_timestamp_seconds" Seconds [environment, datastore] "Unix time of the last restore drill that proved a snapshot.";
    gauge OPSCTL_PROOF_LAST_TIMESTAMP_SECONDS(2) "opsctl_proof_last_timestamp_seconds" Seconds [environment, datastore] "Unix time of the last restore drill.";
    gauge OPSCTL_PROOF_LAST_VERDICT(3) "opsctl_proof_last_verdict" One [environment, datastore, verdict = PROOF_VERDICTS] "1 for what the last restore drill came to, 0 for all others.";
    gauge OPSCTL_PROOF_INTERVAL_OBJECTIVE_SECONDS(2) "opsctl_proof_interval_objective_seconds" Seconds [environment, datastore] "How old the last proof may be.";
    gauge OPSCTL_RECOVERY_POINT_MEASURED_SECONDS(2) "opsctl_recovery_point_measured_seconds" Seconds [environment, datastore] "Age of the newest data that the last restore drill brought back, at the moment to recover.";
    gauge OPSCTL_RECOVERY_POINT_OBJECTIVE_SECONDS(2) "opsctl_recovery_point_objective_seconds" Seconds [environment, datastore] "How much may be lost (RPO).";
    gauge OPSCTL_RECOVERY_TIME_MEASURED_SECONDS(2) "opsctl_recovery_time_measured_seconds" Seconds [environment, datastore] "Time that the last restore drill took until the data was back, checked and answering.";
    gauge OPSCTL_RECOVERY_TIME_OBJECTIVE_SECONDS(2) "opsctl_recovery_time_objective_seconds" Seconds [environment, datastore] "How long coming back may take (RTO).";
    gauge OPSCTL_RECOVERY_OBJECTIVE_MISSED(3) "opsctl_recovery_objective_missed" One [environment, datastore, objective = RECOVERY_OBJECTIVES] "1 while a promise about recovery is broken, 0 while it is kept, absent while that is not known.";
}
