-- Sessions. The columns that the hosting patterns' `agent_sessions` has keep their names and meanings; amounts are
-- dollars, wider than there so that no sum overflows. Text of agents is JSON, not JSONB: it is given back as it was
-- written, and may hold \u0000, which JSONB refuses.
CREATE TABLE agent_sessions (
    id                   TEXT COLLATE "C" PRIMARY KEY,
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
    environment_restarts BIGINT NOT NULL,
    active_turn          JSON,
    conversation_id      BIGINT,
    created_at           TIMESTAMPTZ NOT NULL,
    started_at           TIMESTAMPTZ,
    last_activity_at     TIMESTAMPTZ,
    completed_at         TIMESTAMPTZ,
    terminated_at        TIMESTAMPTZ,
    total_cost           DECIMAL(20, 6) NOT NULL,
    agent_cost           DECIMAL(20, 6) NOT NULL,
    total_tokens         BIGINT NOT NULL,
    input_tokens         BIGINT NOT NULL,
    output_tokens        BIGINT NOT NULL,
    cached_tokens        BIGINT NOT NULL,
    num_turns            BIGINT NOT NULL,
    tools_used           TEXT[] NOT NULL,
    max_idle_time_ms     BIGINT,
    max_lifetime_ms      BIGINT,
    max_budget_usd       DECIMAL(20, 6),
    max_turns            BIGINT,
    on_limit             TEXT NOT NULL,
    tags                 JSONB NOT NULL,
    description          TEXT,
    user_id              TEXT,
    last_event           BIGINT NOT NULL,
    config               JSON NOT NULL,
    -- Counts up with every server that takes the session; who has an older number may not write it.
    generation           BIGINT NOT NULL,
    -- How many commits its writer numbered: the last one again is not written twice.
    commits              BIGINT NOT NULL
);

CREATE INDEX agent_sessions_created_at ON agent_sessions (created_at DESC, id DESC);
CREATE INDEX agent_sessions_pattern ON agent_sessions (pattern, created_at DESC);
CREATE INDEX agent_sessions_status ON agent_sessions (status, created_at DESC);
CREATE INDEX agent_sessions_user_id ON agent_sessions (user_id, created_at DESC);
CREATE INDEX agent_sessions_session_id ON agent_sessions (session_id);
CREATE INDEX agent_sessions_sandbox_id ON agent_sessions (sandbox_id) WHERE sandbox_id IS NOT NULL;
CREATE INDEX agent_sessions_tags ON agent_sessions USING GIN (tags);

CREATE TABLE session_events (
    session_id TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    seq        BIGINT NOT NULL,
    type       TEXT NOT NULL,
    message_id TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    data       JSON NOT NULL,
    PRIMARY KEY (session_id, seq)
);

CREATE TABLE session_agents (
    session_id   TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    sandbox_id   TEXT,
    process_id   TEXT,
    attempt      BIGINT NOT NULL,
    input_offset BIGINT NOT NULL,
    input        BYTEA NOT NULL,
    driver       JSON NOT NULL,
    PRIMARY KEY (session_id, name)
);

CREATE INDEX session_agents_sandbox_id ON session_agents (sandbox_id) WHERE sandbox_id IS NOT NULL;

CREATE TABLE session_messages (
    session_id      TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    id              TEXT NOT NULL,
    idempotency_key TEXT,
    state           TEXT NOT NULL,
    seq             BIGINT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    started_at      TIMESTAMPTZ,
    ended_at        TIMESTAMPTZ,
    outcome         JSON,
    content         JSON NOT NULL,
    PRIMARY KEY (session_id, id),
    UNIQUE (session_id, idempotency_key)
);

CREATE INDEX session_messages_waiting ON session_messages (session_id, seq) WHERE state IN ('queued', 'running');

CREATE TABLE session_questions (
    session_id  TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    tool        TEXT NOT NULL,
    input       JSON NOT NULL,
    description TEXT,
    tool_use_id TEXT,
    state       TEXT NOT NULL,
    asked_at    TIMESTAMPTZ NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    verdict     TEXT,
    decided_by  TEXT,
    PRIMARY KEY (session_id, id)
);

CREATE INDEX session_questions_waiting ON session_questions (session_id, asked_at) WHERE state = 'pending';

CREATE TABLE session_transcripts (
    session_id TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    piece      BIGINT NOT NULL,
    path       TEXT NOT NULL,
    lines      TEXT NOT NULL,
    PRIMARY KEY (session_id, piece)
);

-- What makes creating a session repeatable. The key is claimed before the session is there.
CREATE TABLE session_requests (
    idempotency_key TEXT PRIMARY KEY,
    hash            BYTEA NOT NULL,
    session_id      TEXT NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    created_at      TIMESTAMPTZ NOT NULL
);

CREATE INDEX session_requests_session_id ON session_requests (session_id);

-- One row, written to see whether writing works.
CREATE TABLE session_store_checks (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    checked_at TIMESTAMPTZ NOT NULL
);
