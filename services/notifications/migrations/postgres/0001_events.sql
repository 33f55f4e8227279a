-- Events as they were published. An event is here once, and its effect follows from the row alone.
CREATE TABLE events (
    seq bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL UNIQUE,
    type text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    subject text NOT NULL,
    source text NOT NULL,
    occurred_at text NOT NULL, -- as published
    payload bytea NOT NULL,
    duplicates bigint NOT NULL DEFAULT 0,
    state text NOT NULL CHECK (state IN ('pending', 'processed', 'dead')),
    attempts bigint NOT NULL DEFAULT 0,
    due_at timestamptz, -- when it is to be tried
    reason text,
    detail text,
    dead_since timestamptz,
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK ((state = 'dead') = (dead_since IS NOT NULL AND reason IS NOT NULL))
);
CREATE INDEX events_due ON events (due_at, seq) WHERE state = 'pending';
CREATE INDEX events_dead ON events (seq) WHERE state = 'dead';

CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % never happens', TG_OP, TG_TABLE_NAME;
END $$;
-- What was processed stays processed.
CREATE TRIGGER events_end BEFORE UPDATE OF state ON events FOR EACH ROW WHEN (OLD.state = 'processed')
    EXECUTE FUNCTION never();
CREATE TRIGGER events_remain BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION never();

-- The effects. An event cannot have two.
CREATE TABLE notifications (
    seq bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    notification_id uuid NOT NULL UNIQUE,
    event_id uuid NOT NULL UNIQUE REFERENCES events (event_id),
    type text NOT NULL,
    subject text NOT NULL,
    text text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX notifications_of_subject ON notifications (subject, seq);
CREATE TRIGGER notifications_stay BEFORE UPDATE OR DELETE ON notifications FOR EACH ROW EXECUTE FUNCTION never();
