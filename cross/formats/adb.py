"""Writes .apk packages for OpenWrt 25.12 and later: version 3 of apk's format, as in doc/apk-v3.5.scd of apk-tools and
the schemas of its src/apk_adb.h. All numbers are little-endian.

A file has the magic word ADB., the schema word pckg, and blocks: first the database, then one block of data for each
file that is not empty. The database is a heap of values; each value is written once and referenced by its offset. The
word at offset 4 of the heap references the root object. If the rest is compressed with raw deflate, the magic word is
ADBd: this halves the size. The packages are not signed, so apk needs --allow-untrusted to install them."""

import hashlib
import struct

from .archive import deflate

INT, INT_32, INT_64 = 0x10000000, 0x20000000, 0x30000000
BLOB_8, BLOB_16, BLOB_32 = 0x80000000, 0x90000000, 0xA0000000
# Also for arrays: apk itself marks its arrays as objects.
OBJECT = 0xE0000000
NULL = 0
BLOCK_ADB, BLOCK_DATA = 0, 2

# Fields of each kind of object, in the order of their numbers, beginning with 1.
DEPENDENCY = ("name", "version", "match")
PACKAGE_INFO = (
    "name", "version", "hashes", "description", "arch", "license", "origin", "maintainer", "url", "repo-commit",
    "build-time", "installed-size", "file-size", "provider-priority", "depends",
)
ACL = ("mode", "user", "group")
FILE = ("name", "acl", "size", "mtime", "hash")
DIRECTORY = ("name", "acl", "files")
SCRIPTS = (
    "trigger", "pre-install", "post-install", "pre-deinstall", "post-deinstall", "pre-upgrade", "post-upgrade",
)
PACKAGE = ("info", "paths", "scripts")


class Heap:
    """The heap of the database. Each method adds a value and returns the word that references it. Equal values are
    stored once."""

    def __init__(self):
        self.data = bytearray(8)
        self.known = {}

    def put(self, data, alignment):
        """The offset of these bytes. Uses an earlier copy if its alignment fits."""
        at = self.known.get(data)
        if at is None or at % alignment:
            self.data += bytes(-len(self.data) % alignment)
            at = self.known[data] = len(self.data)
            self.data += data
        return at

    def blob(self, data):
        if isinstance(data, str):
            data = data.encode()
        if not data:
            return NULL
        for kind, form in ((BLOB_8, "<B"), (BLOB_16, "<H"), (BLOB_32, "<I")):
            width = struct.calcsize(form)
            if len(data) < 1 << 8 * width:
                return kind | self.put(struct.pack(form, len(data)) + data, width)
        raise OverflowError("a blob must be smaller than 4 GiB")

    def number(self, value):
        if value < 1 << 28:
            return INT | value
        if value < 1 << 32:
            return INT_32 | self.put(struct.pack("<I", value), 4)
        return INT_64 | self.put(struct.pack("<Q", value), 4)

    def array(self, words):
        """An array of words. The first word is the number of words including itself. Null words at the end are omitted;
        an empty array is null."""
        words = list(words)
        while words and words[-1] == NULL:
            words.pop()
        if not words:
            return NULL
        return OBJECT | self.put(struct.pack(f"<{len(words) + 1}I", len(words) + 1, *words), 4)

    def object(self, fields, values):
        unknown = set(values) - set(fields)
        assert not unknown, unknown
        return self.array(values.get(field, NULL) for field in fields)


def write(info, members, scripts, mtime):
    """The bytes of an .apk. `info` has name, version, description, arch, license, origin, maintainer, url and depends,
    a list of names. `members` is the sorted tree of files and directories. `scripts` has the scripts by names of
    SCRIPTS."""
    heap = Heap()
    described = {field: heap.blob(info[field]) for field in PACKAGE_INFO if field in info and field != "depends"}
    described["depends"] = heap.array(
        heap.object(DEPENDENCY, {"name": heap.blob(name)}) for name in sorted(info["depends"])
    )

    def acl(mode):
        return heap.object(ACL, {"mode": heap.number(mode), "user": heap.blob("root"), "group": heap.blob("root")})

    # The root directory comes first and has no name. Data blocks are in the order of the paths; each begins with the
    # numbers of its directory and file.
    directories = [("", 0o755)] + [(m.path, m.mode) for m in members if m.data is None]
    paths, blocks = [], []
    for path, mode in directories:
        inside = [m for m in members if m.data is not None and m.path.rpartition("/")[0] == path]
        inside.sort(key=lambda m: m.path.encode())
        files = []
        for member in inside:
            files.append(heap.object(FILE, {
                "name": heap.blob(member.path.rpartition("/")[2]),
                "hash": heap.blob(hashlib.sha256(member.data).digest()),
                "mtime": heap.number(mtime),
                "size": heap.number(len(member.data)),
                "acl": acl(member.mode),
            }))
            if member.data:
                blocks.append(struct.pack("<II", len(paths) + 1, len(files)) + member.data)
        paths.append(heap.object(DIRECTORY, {"name": heap.blob(path), "acl": acl(mode), "files": heap.array(files)}))

    described["installed-size"] = heap.number(sum(len(m.data or b"") for m in members))
    # The hash that identifies this build: SHA-256 of the database with a zero hash. Not written by `put`, which could
    # share the bytes with another value.
    identity = len(heap.data) + 1
    described["hashes"] = BLOB_8 | len(heap.data)
    heap.data += bytes([20]) + bytes(20)
    root = heap.object(PACKAGE, {
        "info": heap.object(PACKAGE_INFO, described),
        "paths": heap.array(paths),
        "scripts": heap.object(SCRIPTS, {name: heap.blob(scripts[name]) for name in SCRIPTS if name in scripts}),
    })
    struct.pack_into("<I", heap.data, 4, root)
    heap.data[identity:identity + 20] = hashlib.sha256(heap.data).digest()[:20]

    out = b"ADB.pckg" + block(BLOCK_ADB, bytes(heap.data)) + b"".join(block(BLOCK_DATA, data) for data in blocks)
    return b"ADBd" + deflate(out)


def block(kind, data):
    """A block: 2 bits of kind, 30 bits of size, data, padding to 8 bytes. The size includes the header, not the
    padding."""
    size = len(data) + 4
    return struct.pack("<I", kind << 30 | size) + data + bytes(-size % 8)
