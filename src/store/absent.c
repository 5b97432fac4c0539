/* What SQLite's parser calls although it is built without (LIBSQLITE3_FLAGS): 53 KB of the binary for ALTER TABLE, ANALYZE,
   views and virtual tables, which nobody here asks for. The parser is made before those flags are known, so the linker wants
   something of these names.

   The first are for statements that can only be ours. A migration that needs one gives the feature its place back; until
   then it must not seem to have worked. */
#include <stddef.h>
#include <stdlib.h>

void sqlite3AlterAddConstraint(void) { abort(); }
void sqlite3AlterBeginAddColumn(void) { abort(); }
void sqlite3AlterDropColumn(void) { abort(); }
void sqlite3AlterDropConstraint(void) { abort(); }
void sqlite3AlterFinishAddColumn(void) { abort(); }
void sqlite3AlterRenameColumn(void) { abort(); }
void sqlite3AlterRenameTable(void) { abort(); }
void sqlite3AlterSetNotNull(void) { abort(); }
void sqlite3Analyze(void) { abort(); }
void sqlite3Reindex(void) { abort(); }

/* CREATE VIRTUAL TABLE and CREATE VIEW can stand in a database that somebody has worked on with another program: here they
   make nothing. */
void sqlite3CreateView(void) {}
void sqlite3VtabArgExtend(void) {}
void sqlite3VtabArgInit(void) {}
void sqlite3VtabBeginParse(void) {}
void sqlite3VtabFinishParse(void) {}

/* For CURRENT_TIME and the like: times here are integers, and the C library's way of writing them brings its time zones. */
size_t sqlite3_no_strftime(char *out, size_t size, const char *format, const void *time) {
  (void)out, (void)size, (void)format, (void)time;
  return 0;
}
