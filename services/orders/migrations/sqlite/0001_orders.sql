-- Orders with their sagas, the log of steps, the outbox, idempotency keys, charges without orders. Times are milliseconds since 1970 UTC.
CREATE TABLE orders (
    id               TEXT PRIMARY KEY,      -- UUID version 7: rises with time, never used again
    customer         TEXT NOT NULL,
    items            TEXT NOT NULL,         -- JSON
    currency         TEXT NOT NULL,
    address          TEXT NOT NULL,
    total_cents      INTEGER NOT NULL,
    status           TEXT NOT NULL,
    step             TEXT NOT NULL,         -- what the saga does next; 'done' when final
    attempts         INTEGER NOT NULL,      -- how often that was begun
    cancel_requested INTEGER NOT NULL,
    charge_id        TEXT,
    reason           TEXT,
    detail           TEXT,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    due_at           INTEGER NOT NULL,      -- when the saga may be claimed: end of a lease, or of a back-off
    claim            INTEGER NOT NULL,      -- number of the last claim; outcomes under older numbers are ignored
    owner            TEXT                   -- who claimed last
) WITHOUT ROWID;
CREATE INDEX orders_by_customer ON orders (customer, id);
CREATE INDEX orders_due ON orders (due_at) WHERE step <> 'done';

CREATE TABLE steps (
    order_id TEXT NOT NULL,
    step     TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome  TEXT,
    PRIMARY KEY (order_id, step)
) WITHOUT ROWID;

CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY,
    event_id    TEXT NOT NULL,
    order_id    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    payload     TEXT NOT NULL,              -- JSON
    state       INTEGER NOT NULL,           -- 0 pending, 1 published, 2 dead
    due_at      INTEGER NOT NULL,           -- when it may be claimed
    claim       INTEGER NOT NULL,
    refusals    INTEGER NOT NULL,
    error       TEXT,
    settled_at  INTEGER
);
CREATE INDEX outbox_pending ON outbox (order_id, seq) WHERE state = 0;
CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 0;
CREATE INDEX outbox_dead ON outbox (seq) WHERE state = 2;

CREATE TABLE idempotency (
    customer    TEXT NOT NULL,
    key         TEXT NOT NULL,
    order_id    TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (customer, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE orphans (
    charge_id    TEXT PRIMARY KEY,
    order_id     TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    currency     TEXT NOT NULL,
    charged_at   TEXT NOT NULL,
    found_at     INTEGER NOT NULL,
    refunded_at  INTEGER,
    error        TEXT
) WITHOUT ROWID;
