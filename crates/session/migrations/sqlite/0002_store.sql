-- What tells this store from others whose sessions have the same ids.
CREATE TABLE session_store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL
);
