-- Sessions. The columns that the hosting patterns' `agent_sessions` has keep their names and meanings; amounts are
-- dollars. Times are microseconds since 1970 (UTC): whole numbers compare and subtract as they are, and are what
-- PostgreSQL keeps too. Lists are JSON arrays.
CREATE TABLE agent_sessions (
    id                   TEXT PRIMARY KEY NOT NULL,
    session_id           TEXT NOT NULL,
    pattern              TEXT NOT NULL
        CHECK (pattern IN ('ephemeral', 'long-running', 'hybrid', 'single-container')),
    status               TEXT NOT NULL
        CHECK (status IN ('initializing', 'active', 'idle', 'stopping', 'completed', 'error', 'terminated')),
    termination_reason   TEXT,
    reason_message       TEXT,
    environment_status   TEXT NOT NULL,
    environment_message  TEXT,
    sandbox_id           TEXT,
    environment_start    TEXT,
    environment_restarts INTEGER NOT NULL,
    active_turn          TEXT,
    conversation_id      INTEGER,
    created_at           INTEGER NOT NULL,
    started_at           INTEGER,
    last_activity_at     INTEGER,
    completed_at         INTEGER,
    terminated_at        INTEGER,
    total_cost           REAL NOT NULL,
    agent_cost           REAL NOT NULL,
    total_tokens         INTEGER NOT NULL,
    input_tokens         INTEGER NOT NULL,
    output_tokens        INTEGER NOT NULL,
    cached_tokens        INTEGER NOT NULL,
    num_turns            INTEGER NOT NULL,
    tools_used           TEXT NOT NULL,
    max_idle_time_ms     INTEGER,
    max_lifetime_ms      INTEGER,
    max_budget_usd       REAL,
    max_turns            INTEGER,
    on_limit             TEXT NOT NULL,
    tags                 TEXT NOT NULL,
    description          TEXT,
    user_id              TEXT,
    last_event           INTEGER NOT NULL,
    config               TEXT NOT NULL,
    -- Counts up with every server that takes the session; who has an older number may not write it.
    generation           INTEGER NOT NULL,
    -- How many commits its writer numbered: the last one again is not written twice.
    commits              INTEGER NOT NULL
) STRICT;

CREATE INDEX agent_sessions_created_at ON agent_sessions (created_at DESC, id DESC);
CREATE INDEX agent_sessions_pattern ON agent_sessions (pattern, created_at DESC);
CREATE INDEX agent_sessions_status ON agent_sessions (status, created_at DESC);
CREATE INDEX agent_sessions_user_id ON agent_sessions (user_id, created_at DESC);
CREATE INDEX agent_sessions_session_id ON agent_sessions (session_id);
CREATE INDEX agent_sessions_sandbox_id ON agent_sessions (sandbox_id) WHERE sandbox_id IS NOT NULL;

CREATE TABLE session_events (
    session_id TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    type       TEXT NOT NULL,
    message_id TEXT,
    created_at INTEGER NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE session_agents (
    session_id   TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    sandbox_id   TEXT,
    process_id   TEXT,
    attempt      INTEGER NOT NULL,
    input_offset INTEGER NOT NULL,
    input        BLOB NOT NULL,
    driver       TEXT NOT NULL,
    PRIMARY KEY (session_id, name)
) STRICT;

CREATE INDEX session_agents_sandbox_id ON session_agents (sandbox_id) WHERE sandbox_id IS NOT NULL;

CREATE TABLE session_messages (
    session_id      TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    id              TEXT NOT NULL,
    idempotency_key TEXT,
    state           TEXT NOT NULL,
    seq             INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    outcome         TEXT,
    content         TEXT NOT NULL,
    PRIMARY KEY (session_id, id),
    UNIQUE (session_id, idempotency_key)
) STRICT;

CREATE INDEX session_messages_waiting ON session_messages (session_id, seq) WHERE state IN ('queued', 'running');

CREATE TABLE session_questions (
    session_id  TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    tool        TEXT NOT NULL,
    input       TEXT NOT NULL,
    description TEXT,
    tool_use_id TEXT,
    state       TEXT NOT NULL,
    asked_at    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    verdict     TEXT,
    decided_by  TEXT,
    PRIMARY KEY (session_id, id)
) STRICT;

CREATE INDEX session_questions_waiting ON session_questions (session_id, asked_at) WHERE state = 'pending';

CREATE TABLE session_transcripts (
    session_id TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    piece      INTEGER NOT NULL,
    path       TEXT NOT NULL,
    lines      TEXT NOT NULL,
    PRIMARY KEY (session_id, piece)
) STRICT, WITHOUT ROWID;

-- What makes creating a session repeatable. The key is claimed before the session is there.
CREATE TABLE session_requests (
    idempotency_key TEXT PRIMARY KEY NOT NULL,
    hash            BLOB NOT NULL,
    session_id      TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    created_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX session_requests_session_id ON session_requests (session_id);

-- One row, written to see whether writing works.
CREATE TABLE session_store_checks (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    checked_at INTEGER NOT NULL
) STRICT;
