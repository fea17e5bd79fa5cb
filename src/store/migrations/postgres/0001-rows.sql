-- The tables of ../0001-rows.sql for PostgreSQL, in the schema of the connection.
CREATE TABLE counters (id bigint PRIMARY KEY, row bytea NOT NULL);
CREATE TABLE job (id bigint PRIMARY KEY, row bytea NOT NULL);
CREATE TABLE task (id bigint NOT NULL, sub bigint NOT NULL, row bytea NOT NULL, PRIMARY KEY (id, sub));
CREATE TABLE node (name text PRIMARY KEY, row bytea NOT NULL);
CREATE TABLE node_group (name text PRIMARY KEY, row bytea NOT NULL);
CREATE TABLE attempt (id bigint PRIMARY KEY, row bytea NOT NULL);
CREATE TABLE event (id bigint PRIMARY KEY, row bytea NOT NULL);

CREATE TABLE quarantine (kind text NOT NULL, id bigint, sub bigint, name text, row bytea, error text NOT NULL,
                         at timestamptz NOT NULL DEFAULT now());

CREATE TABLE meta (key text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO meta VALUES ('generation', 0);
