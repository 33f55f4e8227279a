-- Events as they were published. An event is here once, and its effect follows from the row alone.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    subject TEXT NOT NULL,
    source TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    payload BLOB NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('pending', 'processed', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER, -- microseconds since 1970: when it is to be tried
    reason TEXT,
    detail TEXT,
    dead_since INTEGER, -- microseconds since 1970
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK ((state = 'dead') = (dead_since IS NOT NULL AND reason IS NOT NULL))
) STRICT;
CREATE INDEX events_due ON events (due_at) WHERE state = 'pending';
CREATE INDEX events_dead ON events (seq) WHERE state = 'dead';

-- What was processed stays processed.
CREATE TRIGGER events_end BEFORE UPDATE OF state ON events WHEN OLD.state = 'processed' BEGIN
    SELECT raise(ABORT, 'a processed event never changes its state');
END;
CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN
    SELECT raise(ABORT, 'an event is never removed');
END;

-- The effects. An event cannot have two.
CREATE TABLE notifications (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    notification_id TEXT NOT NULL UNIQUE,
    event_id TEXT NOT NULL UNIQUE REFERENCES events (event_id),
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    created_at INTEGER NOT NULL -- microseconds since 1970
) STRICT;
CREATE INDEX notifications_of_subject ON notifications (subject, seq);
CREATE TRIGGER notifications_stay BEFORE UPDATE ON notifications BEGIN
    SELECT raise(ABORT, 'a notification never changes');
END;
CREATE TRIGGER notifications_remain BEFORE DELETE ON notifications BEGIN
    SELECT raise(ABORT, 'a notification is never removed');
END;
