-- One table for each kind of row (core.h: ROW_KINDS): its key, and the packed message of model.proto.
-- Names are lower case. A file of ours is known by its application_id ("Must").
PRAGMA application_id = 1299542900;

CREATE TABLE counters (id INTEGER PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE job (id INTEGER PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE task (id INTEGER NOT NULL, sub INTEGER NOT NULL, row BLOB NOT NULL,
                   PRIMARY KEY (id, sub)) STRICT, WITHOUT ROWID;
CREATE TABLE node (name TEXT PRIMARY KEY NOT NULL, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE node_group (name TEXT PRIMARY KEY NOT NULL, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE attempt (id INTEGER PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE event (id INTEGER PRIMARY KEY, row BLOB NOT NULL) STRICT;

-- Rows that could not be read at a start, and why. Nothing reads them but people.
CREATE TABLE quarantine (kind TEXT NOT NULL, id INTEGER, sub INTEGER, name TEXT, row BLOB, error TEXT NOT NULL,
                         at INTEGER NOT NULL DEFAULT (unixepoch())) STRICT;

-- generation: how many times the store was opened by a head.
CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0);

-- Written and removed to find out whether the disk takes rows again.
CREATE TABLE probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
