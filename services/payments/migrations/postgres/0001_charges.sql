-- What was asked for and decided; a row is never changed and never removed.
CREATE TABLE charges (
    seq bigint PRIMARY KEY,
    charge_id uuid NOT NULL UNIQUE,
    order_id text NOT NULL CHECK (length(order_id) BETWEEN 1 AND 64),
    idempotency_key text NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    decline_reason text CHECK (length(decline_reason) > 0), -- NULL: the money was taken
    created_at timestamptz NOT NULL
);

-- However a client misbehaves, an order is charged at most once.
CREATE UNIQUE INDEX one_charge_per_order ON charges (order_id) WHERE decline_reason IS NULL;
CREATE INDEX charges_of_order ON charges (order_id, seq);

-- Numbers are given in the order of commits, as far as a reader can see: who reads the list to a place and comes back
-- later finds all that was stored meanwhile. Whoever takes a number holds the lock, together with others, until the end of
-- the transaction; whoever lists takes it alone, and so waits for those who have a number and are not yet to be seen.
CREATE SEQUENCE charge_numbers OWNED BY charges.seq;
CREATE FUNCTION number_charge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('charges'::regclass::oid::bigint);
    NEW.seq := nextval('charge_numbers');
    RETURN NEW;
END $$;
CREATE TRIGGER charges_are_numbered BEFORE INSERT ON charges FOR EACH ROW EXECUTE FUNCTION number_charge();

CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % never happens', TG_OP, TG_TABLE_NAME;
END $$;
CREATE TRIGGER charges_stay BEFORE UPDATE OR DELETE ON charges FOR EACH ROW EXECUTE FUNCTION never();

-- The primary key makes a refund happen at most once for each charge.
CREATE TABLE refunds (
    charge_id uuid PRIMARY KEY REFERENCES charges (charge_id),
    created_at timestamptz NOT NULL
);
CREATE FUNCTION refund_needs_a_charge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM charges WHERE charge_id = NEW.charge_id AND decline_reason IS NOT NULL) THEN
        RAISE EXCEPTION 'what was declined cannot be refunded';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refunds_need_a_charge BEFORE INSERT ON refunds FOR EACH ROW EXECUTE FUNCTION refund_needs_a_charge();
CREATE TRIGGER refunds_stay BEFORE UPDATE OR DELETE ON refunds FOR EACH ROW EXECUTE FUNCTION never();

-- Which refund a key stands for.
CREATE TABLE refund_keys (
    idempotency_key text PRIMARY KEY CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    charge_id uuid NOT NULL REFERENCES refunds (charge_id)
);
