CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash TEXT NOT NULL CHECK (password_hash LIKE '$scrypt$%'),
    created_at INTEGER NOT NULL -- microseconds since 1970
) STRICT, WITHOUT ROWID;
