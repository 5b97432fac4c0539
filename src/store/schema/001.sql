-- The window of six hours that is still open, the first tick whose samples are in no row of a coarser level, and the time
-- zone in which the latest day was cut.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- tally: raw counters and lifetime totals as of some tick; what came later is in the blocks.
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

-- No table has an index beside its key: each would be one more page to write at every flush.

-- One block for each flush: ticks with their samples, in the order of time; blocks never overlap. first and last are the
-- times of their ticks, seq the highest number of a tick, n the number of samples.
CREATE TABLE sample (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,
    data BLOB NOT NULL
);

-- Six hours of five-minute cells.
CREATE TABLE five_minutes (start INTEGER PRIMARY KEY, data BLOB NOT NULL);

-- A UTC day of hours.
CREATE TABLE hour (start INTEGER PRIMARY KEY, data BLOB NOT NULL);

-- A local day, in the time zone of its time.
CREATE TABLE day (start INTEGER PRIMARY KEY, until INTEGER NOT NULL, data BLOB NOT NULL);

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    unix INTEGER,
    kind TEXT NOT NULL,
    interface TEXT NOT NULL,
    detail TEXT NOT NULL
);
