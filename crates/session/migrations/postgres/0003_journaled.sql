-- How much an agent had the server write, in bytes: what is over its bound is not taken. Older ones begin with nothing.
ALTER TABLE session_agents ADD COLUMN journaled BIGINT NOT NULL DEFAULT 0;
