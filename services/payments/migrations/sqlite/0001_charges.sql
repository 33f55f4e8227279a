-- What was asked for and decided; a row is never changed and never removed.
CREATE TABLE charges (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    charge_id TEXT NOT NULL UNIQUE,
    order_id TEXT NOT NULL CHECK (length(order_id) BETWEEN 1 AND 64),
    idempotency_key TEXT NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    currency TEXT NOT NULL CHECK (currency GLOB '[A-Z][A-Z][A-Z]'),
    decline_reason TEXT CHECK (length(decline_reason) > 0), -- NULL: the money was taken
    created_at INTEGER NOT NULL -- microseconds since 1970
) STRICT;

-- However a client misbehaves, an order is charged at most once.
CREATE UNIQUE INDEX one_charge_per_order ON charges (order_id) WHERE decline_reason IS NULL;
CREATE INDEX charges_of_order ON charges (order_id, seq);

CREATE TRIGGER charges_stay BEFORE UPDATE ON charges BEGIN
    SELECT raise(ABORT, 'a charge never changes');
END;
CREATE TRIGGER charges_remain BEFORE DELETE ON charges BEGIN
    SELECT raise(ABORT, 'a charge is never removed');
END;

-- The primary key makes a refund happen at most once for each charge.
CREATE TABLE refunds (
    charge_id TEXT PRIMARY KEY REFERENCES charges (charge_id),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER refunds_need_a_charge BEFORE INSERT ON refunds
WHEN EXISTS (SELECT 1 FROM charges WHERE charge_id = NEW.charge_id AND decline_reason IS NOT NULL) BEGIN
    SELECT raise(ABORT, 'what was declined cannot be refunded');
END;
CREATE TRIGGER refunds_stay BEFORE UPDATE ON refunds BEGIN
    SELECT raise(ABORT, 'a refund never changes');
END;
CREATE TRIGGER refunds_remain BEFORE DELETE ON refunds BEGIN
    SELECT raise(ABORT, 'a refund is never removed');
END;

-- Which refund a key stands for.
CREATE TABLE refund_keys (
    idempotency_key TEXT PRIMARY KEY CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    charge_id TEXT NOT NULL REFERENCES refunds (charge_id)
) STRICT, WITHOUT ROWID;
