-- window: start of the open block of six hours; since: the first tick whose samples are in no roll-up; zone: the time
-- zone that the latest day was cut in; opened: how often the file was opened; file: its id; migration and
-- migration_told: see migrate.rs.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- tally: raw counters and lifetime totals as of some tick; the samples of later ticks are in the blocks.
CREATE TABLE interface (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    alias TEXT NOT NULL,
    ifindex INTEGER NOT NULL,
    boot TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    tally BLOB
);

-- No table has a secondary index: each would be one more page to write with every save.

-- One block for each save: ticks with their samples, in the order of time; blocks never overlap. first, last: times of
-- the first and last tick (UTC seconds); seq: the highest tick number; n: number of samples.
CREATE TABLE sample (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,
    data BLOB NOT NULL
);

-- Five-minute cells of six hours.
CREATE TABLE five_minutes (start INTEGER PRIMARY KEY, data BLOB NOT NULL);

-- Hours of a UTC day.
CREATE TABLE hour (start INTEGER PRIMARY KEY, data BLOB NOT NULL);

-- A local day, in the time zone that was set at the time.
CREATE TABLE day (start INTEGER PRIMARY KEY, until INTEGER NOT NULL, data BLOB NOT NULL);

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    unix INTEGER,
    kind TEXT NOT NULL,
    interface TEXT NOT NULL,
    detail TEXT NOT NULL
);
