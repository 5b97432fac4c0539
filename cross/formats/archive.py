"""Writes tar, gzip and ar. Not with Python's libraries: their output depends on their version (device numbers,
operating system bytes, pax headers), and the same commit must give the same bytes on every machine."""

import functools
import struct
import zlib
from typing import NamedTuple, Optional


class Fault(Exception):
    """An error with a message for the user; the scripts print it without a traceback."""


class File(NamedTuple):
    """A file or, if `data` is None, a directory. Paths are relative: usr/bin/net-pulse."""

    path: str
    mode: int
    data: Optional[bytes]


def tree(files):
    """The files and all their parent directories, sorted by path, so that the order is the same on every machine."""
    found = {}
    for file in files:
        if file.path in found:
            raise Fault(f"{file.path} is in the package twice")
        found[file.path] = file
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            path = "/".join(parts[:depth])
            if found.setdefault(path, File(path, 0o755, None)).data is not None:
                raise Fault(f"{path} is both a file and a directory")
    return [found[path] for path in sorted(found, key=str.encode)]


def header(name, mode, size, mtime, kind):
    """A tar header in ustar format, which dpkg, opkg and busybox read. The owner is root by number, without a name."""
    encoded = name.encode()
    if len(encoded) > 100:
        raise Fault(f"{name} is longer than 100 bytes, the maximum of a plain tar header")
    block = struct.pack(
        "100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x",
        encoded, b"%07o" % mode, b"%07o" % 0, b"%07o" % 0, b"%011o" % size, b"%011o" % mtime, b" " * 8, kind, b"",
        b"ustar", b"00", b"", b"", b"%07o" % 0, b"%07o" % 0, b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def tar(members, mtime, prefix=""):
    """The bytes of a tar file. With the prefix ./ it begins with that directory, as in Debian's and OpenWrt's
    packages."""
    out = bytearray(header(prefix, 0o755, 0, mtime, b"5") if prefix else b"")
    for member in members:
        if member.data is None:
            out += header(f"{prefix}{member.path}/", member.mode, 0, mtime, b"5")
        else:
            out += header(prefix + member.path, member.mode, len(member.data), mtime, b"0")
            out += member.data + bytes(-len(member.data) % 512)
    # Two empty blocks mark the end. The size is a multiple of 10,240 bytes, because some readers warn otherwise.
    out += bytes(1024)
    return bytes(out + bytes(-len(out) % 10240))


def deflate(data):
    """Raw deflate with zlib's best level. A higher memory level than the default made programs larger in
    measurements."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def gzip(data):
    """Like gzip -9n: no name, no time, and a fixed operating system byte."""
    head = b"\x1f\x8b\x08\0" + bytes(4) + b"\x02\x03"
    return head + deflate(data) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


@functools.lru_cache(maxsize=2)
def gzip_for_flash(data):
    """The same by zopfli: 4 % smaller for ten times the work. The cache serves architectures with the same binary."""
    import zopfli.gzip  # cross/package has installed it
    return zopfli.gzip.compress(data, numiterations=3)


def ar(members, mtime):
    """The bytes of an ar file in the common format. Names have at most 15 bytes here, so it needs no extensions."""
    out = bytearray(b"!<arch>\n")
    for name, data in members:
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), mtime, 0, 0, b"100644", len(data))
        out += data + b"\n" * (len(data) % 2)
    return bytes(out)
