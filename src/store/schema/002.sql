-- The link whose counters `tally` has: the machine (a digest of its id), the network namespace within its boot, the
-- hardware address of the link, and the inode of its device in sysfs. Empty and 0 where unknown.
ALTER TABLE interface ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE interface ADD COLUMN namespace INTEGER NOT NULL DEFAULT 0;
ALTER TABLE interface ADD COLUMN mac TEXT NOT NULL DEFAULT '';
ALTER TABLE interface ADD COLUMN node INTEGER NOT NULL DEFAULT 0;
