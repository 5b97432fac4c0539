"""tar, gzip and ar, written by hand: what the libraries make of the same input changes with their version (device numbers,
operating system bytes, pax headers), and the same commit has to give the same bytes on every machine."""

import functools
import struct
import zlib
from typing import NamedTuple, Optional


class Fault(Exception):
    """What the user is told, and nothing more."""


class File(NamedTuple):
    """One file or, without data, one directory. Paths are relative: usr/bin/net-pulse."""

    path: str
    mode: int
    data: Optional[bytes]


def tree(files):
    """The files with every directory above them, sorted by path: the order of a disk, a locale or a table is nobody's."""
    found = {}
    for file in files:
        if file.path in found:
            raise Fault(f"{file.path} is in the package twice")
        found[file.path] = file
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            path = "/".join(parts[:depth])
            if found.setdefault(path, File(path, 0o755, None)).data is not None:
                raise Fault(f"{path} is a file and a directory")
    return [found[path] for path in sorted(found, key=str.encode)]


def header(name, mode, size, mtime, kind):
    """One tar header in ustar, which dpkg, opkg and busybox all read. No names of owners: their numbers say it, root."""
    encoded = name.encode()
    if len(encoded) > 100:
        raise Fault(f"{name} is longer than the 100 bytes a plain tar header takes")
    block = struct.pack(
        "100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x",
        encoded, b"%07o" % mode, b"%07o" % 0, b"%07o" % 0, b"%011o" % size, b"%011o" % mtime, b" " * 8, kind, b"",
        b"ustar", b"00", b"", b"", b"%07o" % 0, b"%07o" % 0, b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def tar(members, mtime, prefix=""):
    """A whole tar file. With the prefix ./ it begins with that directory itself, as Debian's and OpenWrt's do."""
    out = bytearray(header(prefix, 0o755, 0, mtime, b"5") if prefix else b"")
    for member in members:
        if member.data is None:
            out += header(f"{prefix}{member.path}/", member.mode, 0, mtime, b"5")
        else:
            out += header(prefix + member.path, member.mode, len(member.data), mtime, b"0")
            out += member.data + bytes(-len(member.data) % 512)
    # Two empty blocks are the end, and the whole is a multiple of ten kilobytes: some readers warn otherwise.
    out += bytes(1024)
    return bytes(out + bytes(-len(out) % 10240))


def deflate(data):
    """Raw deflate, as small as zlib makes it: more memory than its default was measured to make programs larger."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def gzip(data):
    """Like gzip -9n: no name, no time, and always the same operating system byte."""
    head = b"\x1f\x8b\x08\0" + bytes(4) + b"\x02\x03"
    return head + deflate(data) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


@functools.lru_cache(maxsize=2)
def gzip_for_flash(data):
    """The same by zopfli, 4 % smaller for ten times the work: once for all architectures that get the same."""
    import zopfli.gzip  # cross/package has made sure of it
    return zopfli.gzip.compress(data, numiterations=3)


def ar(members, mtime):
    """The common ar format. Names are at most 15 bytes here, so that none of its extensions is needed."""
    out = bytearray(b"!<arch>\n")
    for name, data in members:
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), mtime, 0, 0, b"100644", len(data))
        out += data + b"\n" * (len(data) % 2)
    return bytes(out)
