//! Databases: from the services' side their pools and calls, from PostgreSQL's side what `postgres_exporter` says.

use manifest::landscape::{Board, DatastoreKind, Landscape};

use super::requests::quantile;
use super::sheet::{Plot, Sheet};
use super::{Draft, uid, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    let mut sheet = Sheet::default().row("Pools", pools()).row("Calls", calls());
    let mut variables = vec![variables::services(landscape)];
    if landscape
        .datastores
        .iter()
        .any(|store| store.kind == DatastoreKind::Postgres)
    {
        let about = "The PostgreSQL servers that are shown, by their exporter.";
        variables.push(variables::label_values("server", "Server", about, "pg_up", "instance"));
        sheet = sheet
            .row("PostgreSQL", server())
            .folded("PostgreSQL: tables, cache, replication", inside());
    }
    Some(Draft {
        uid: uid(Board::Postgres),
        title: "Databases",
        about: "Pools and calls of every service, and the PostgreSQL servers behind them.",
        from: "now-1h",
        variables,
        sheet,
    })
}

fn pools() -> [Plot; 4] {
    [
        Plot::lines("Connections that are used", Unit::Ratio)
            .about("Of those that a pool may have, in the fullest instance. At 100 % callers wait.")
            .wide(6)
            .up_to(1.0)
            .steps(&[(0.8, "orange"), (1.0, "red")])
            .ask(
                "max by (job, pool) (db_pool_connections{SERVICE, state=\"used\"} / on (job, instance, pool) db_pool_connections_max{SERVICE})",
                "{{job}} {{pool}}",
            ),
        Plot::lines("Connections", Unit::Count)
            .about("Open connections of all instances, used and idle. All pools together must fit into what the server allows.")
            .wide(6)
            .stacked()
            .ask(
                "sum by (job, pool, state) (db_pool_connections{SERVICE})",
                "{{job}} {{pool}} {{state}}",
            ),
        Plot::lines("Callers that wait", Unit::Count)
            .about("For a connection. More than none for long: the pool is too small, or calls are too slow.")
            .wide(6)
            .ask("sum by (job, pool) (db_pool_waiters{SERVICE})", "{{job}} {{pool}}"),
        Plot::lines("Wait for a connection", Unit::Seconds)
            .about("99 of 100 callers waited no longer than this; and how many per second got none in time.")
            .wide(6)
            .unit_of("without one", Unit::PerSecond)
            .ask(quantile("0.99", "job, pool, le", "db_pool_wait_seconds_bucket{SERVICE}"), "{{job}} {{pool}}")
            .ask("sum(rate(db_pool_timeouts_total{SERVICE}[$__rate_interval]))", "without one"),
    ]
}

fn calls() -> [Plot; 4] {
    [
        Plot::lines("Calls", Unit::PerSecond)
            .about("Calls per second by operation and table.")
            .wide(6)
            .ask(
                "sum by (job, db_operation_name, db_collection_name) (rate(db_client_operation_duration_seconds_count{SERVICE}[$__rate_interval]))",
                "{{job}} {{db_operation_name}} {{db_collection_name}}",
            ),
        Plot::lines("Calls that failed", Unit::PerSecond)
            .about("By what went wrong.")
            .wide(6)
            .ask(
                "sum by (job, db_system_name, error_type) (rate(db_client_operation_duration_seconds_count{SERVICE, error_type!=\"\"}[$__rate_interval]))",
                "{{job}} {{db_system_name}} {{error_type}}",
            ),
        Plot::lines("Duration", Unit::Seconds)
            .about("95 of 100 calls took no longer than this, with their wait for a connection. A dot is a trace: it opens.")
            .wide(6)
            .with_traces()
            .ask(
                quantile(
                    "0.95",
                    "job, db_operation_name, db_collection_name, le",
                    "db_client_operation_duration_seconds_bucket{SERVICE}",
                ),
                "{{job}} {{db_operation_name}} {{db_collection_name}}",
            ),
        Plot::heat("All durations", Unit::Seconds)
            .about("How many calls took how long.")
            .wide(6)
            .ask(
                "sum by (le) (rate(db_client_operation_duration_seconds_bucket{SERVICE}[$__rate_interval]))",
                "{{le}}",
            ),
    ]
}

fn server() -> [Plot; 6] {
    [
        Plot::states("Answers", &[("0", "down", "red"), ("1", "up", "green")])
            .about("Whether the exporter reaches its server.")
            .ask("min by (instance) (pg_up{instance=~\"$server\"})", "{{instance}}"),
        Plot::lines("Connections that are taken", Unit::Ratio)
            .about("Of those that are not kept for superusers. At 100 % nobody gets in any more.")
            .up_to(1.0)
            .steps(&[(0.8, "orange"), (0.9, "red")])
            .ask(
                "sum by (job, instance) (pg_stat_activity_count{instance=~\"$server\"}) / on (job, instance) (max by (job, instance) (pg_settings_max_connections{instance=~\"$server\"}) - on (job, instance) max by (job, instance) (pg_settings_superuser_reserved_connections{instance=~\"$server\"}))",
                "{{instance}}",
            ),
        Plot::lines("Connections by state", Unit::Count)
            .about("`idle in transaction` holds locks and does nothing.")
            .ask(
                "sum by (instance, state) (pg_stat_activity_count{instance=~\"$server\"})",
                "{{instance}} {{state}}",
            ),
        Plot::lines("Transactions", Unit::PerSecond)
            .about("Per second, committed and rolled back, by database.")
            .ask(
                "sum by (instance, datname) (rate(pg_stat_database_xact_commit{instance=~\"$server\"}[$__rate_interval]))",
                "{{instance}} {{datname}}",
            )
            .ask(
                "sum by (instance, datname) (rate(pg_stat_database_xact_rollback{instance=~\"$server\"}[$__rate_interval]))",
                "{{instance}} {{datname}} rolled back",
            ),
        Plot::lines("Longest transaction", Unit::Seconds)
            .about("Age of the oldest one. Hours keep vacuum from cleaning up.")
            .ask(
                "max by (instance, datname) (pg_stat_activity_max_tx_duration{instance=~\"$server\"})",
                "{{instance}} {{datname}}",
            ),
        Plot::lines("Deadlocks", Unit::Count)
            .about("In the last hour, by database.")
            .ask(
                "sum by (instance, datname) (increase(pg_stat_database_deadlocks{instance=~\"$server\"}[1h]))",
                "{{instance}} {{datname}}",
            ),
    ]
}

fn inside() -> [Plot; 6] {
    [
        Plot::lines("Size", Unit::Bytes)
            .about("Of each database.")
            .ask(
                "max by (instance, datname) (pg_database_size_bytes{instance=~\"$server\"})",
                "{{instance}} {{datname}}",
            ),
        Plot::lines("Blocks found in memory", Unit::Ratio)
            .about("Share of blocks that were in PostgreSQL's own cache.")
            .up_to(1.0)
            .ask(
                "sum by (instance) (rate(pg_stat_database_blks_hit{instance=~\"$server\"}[$__rate_interval])) / (sum by (instance) (rate(pg_stat_database_blks_hit{instance=~\"$server\"}[$__rate_interval])) + sum by (instance) (rate(pg_stat_database_blks_read{instance=~\"$server\"}[$__rate_interval])) > 0)",
                "{{instance}}",
            ),
        Plot::lines("Rows", Unit::RowsPerSecond)
            .about("Per second: read by queries, inserted, updated, deleted.")
            .ask("sum(rate(pg_stat_database_tup_fetched{instance=~\"$server\"}[$__rate_interval]))", "read")
            .ask("sum(rate(pg_stat_database_tup_inserted{instance=~\"$server\"}[$__rate_interval]))", "inserted")
            .ask("sum(rate(pg_stat_database_tup_updated{instance=~\"$server\"}[$__rate_interval]))", "updated")
            .ask("sum(rate(pg_stat_database_tup_deleted{instance=~\"$server\"}[$__rate_interval]))", "deleted"),
        Plot::lines("Dead rows", Unit::Count)
            .about("The ten tables with the most rows that vacuum has not cleaned up.")
            .ask(
                "topk(10, max by (instance, datname, relname) (pg_stat_user_tables_n_dead_tup{instance=~\"$server\"}))",
                "{{instance}} {{datname}} {{relname}}",
            ),
        Plot::lines("Locks", Unit::Count)
            .about("Held, by mode.")
            .ask(
                "sum by (instance, mode) (pg_locks_count{instance=~\"$server\"}) > 0",
                "{{instance}} {{mode}}",
            ),
        Plot::lines("Replication lag", Unit::Seconds)
            .about("How far a replica is behind.")
            .ask(
                "max by (instance) (pg_replication_lag_seconds{instance=~\"$server\"})",
                "{{instance}}",
            ),
    ]
}
