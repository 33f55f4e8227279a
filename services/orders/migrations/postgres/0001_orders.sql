-- Orders with their sagas, the log of steps, the outbox, idempotency keys, charges without orders.
CREATE TABLE orders (
    id               uuid PRIMARY KEY,      -- version 7: rises with time, never used again
    customer         text NOT NULL,
    items            text NOT NULL,         -- JSON
    currency         text NOT NULL,
    address          text NOT NULL,
    total_cents      bigint NOT NULL,
    status           text NOT NULL,
    step             text NOT NULL,         -- what the saga does next; 'done' when final
    attempts         bigint NOT NULL,       -- how often that was begun
    cancel_requested boolean NOT NULL,
    charge_id        text,
    reason           text,
    detail           text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    due_at           timestamptz NOT NULL,  -- when the saga may be claimed: end of a lease, or of a back-off
    claim            bigint NOT NULL,       -- number of the last claim; outcomes under older numbers are ignored
    owner            text,                  -- who claimed last
    origin           text                   -- JSON of the headers traceparent, tracestate and x-correlation-id
);
CREATE INDEX orders_by_customer ON orders (customer, id);
CREATE INDEX orders_due ON orders (due_at, id) WHERE step <> 'done';

CREATE TABLE steps (
    order_id uuid NOT NULL,
    step     text NOT NULL,
    attempts bigint NOT NULL,
    begun_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome  text,
    PRIMARY KEY (order_id, step)
);

-- The events of one order are written by transactions that hold the order's row, so that their numbers rise in the order
-- of the commits.
CREATE TABLE outbox (
    seq         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    event_id    uuid NOT NULL,
    order_id    uuid NOT NULL,
    kind        text NOT NULL,
    version     bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    payload     text NOT NULL,              -- JSON
    state       smallint NOT NULL,          -- 0 pending, 1 published, 2 dead
    due_at      timestamptz NOT NULL,       -- when it may be claimed
    claim       bigint NOT NULL,
    refusals    bigint NOT NULL,
    error       text,
    settled_at  timestamptz
);
CREATE INDEX outbox_pending ON outbox (order_id, seq) WHERE state = 0;
CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 0;
CREATE INDEX outbox_dead ON outbox (seq) WHERE state = 2;

CREATE TABLE idempotency (
    customer    text NOT NULL,
    key         text NOT NULL,
    order_id    uuid NOT NULL,
    fingerprint bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (customer, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE orphans (
    charge_id    text PRIMARY KEY,
    order_id     text NOT NULL,
    amount_cents bigint NOT NULL,
    currency     text NOT NULL,
    charged_at   text NOT NULL,             -- as payments tells it
    found_at     timestamptz NOT NULL,
    refunded_at  timestamptz,
    error        text
);
