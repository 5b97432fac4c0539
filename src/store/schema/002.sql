-- Whose counters `tally` has: the machine (a digest of its id), the network namespace within its boot, and the hardware
-- address of the link. Empty and 0 where they are not known.
ALTER TABLE interface ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE interface ADD COLUMN namespace INTEGER NOT NULL DEFAULT 0;
ALTER TABLE interface ADD COLUMN mac TEXT NOT NULL DEFAULT '';
