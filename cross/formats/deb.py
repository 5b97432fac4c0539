"""Writes .deb packages: an ar file with the format version, control.tar.xz and data.tar.xz (deb(5))."""

import hashlib
import lzma
import re

from .archive import Fault, File, ar, gzip, tar, tree
from .contents import DEBIAN, DEBIAN_SCRIPTS, gather, project, read

# The settings of dpkg-deb. Unpacking takes 9 MB of memory, which a Pi Zero has.
XZ = {"format": lzma.FORMAT_XZ, "check": lzma.CHECK_CRC32, "preset": 6 | lzma.PRESET_EXTREME}


def write(root, binary, version, architecture, mtime):
    """The bytes of a .deb with version X.Y.Z-1."""
    begins = read(root, "cross/debian/changelog").decode().split(" ")[:2]
    if begins != ["net-pulse", f"({version}-1)"]:
        raise Fault(f"cross/debian/changelog begins with {' '.join(begins)}, but Cargo.toml has version {version}")
    members = tree(gather(root, DEBIAN, binary))
    # In KiB, as dpkg-gencontrol counts: each file rounded up, each directory as 1.
    size = sum(1 if member.data is None else -(-len(member.data) // 1024) for member in members)
    sums = "".join(f"{hashlib.md5(m.data).hexdigest()}  {m.path}\n" for m in members if m.data is not None)
    conffiles = "".join(f"/{m.path}\n" for m in members if m.data is not None and m.path.startswith("etc/"))
    about = [File("control", 0o644, control(root, version, architecture, size)), File("md5sums", 0o644, sums.encode()),
             File("conffiles", 0o644, conffiles.encode())]
    # debhelper would replace #DEBHELPER# by generated lines; these scripts need none.
    about += [File(name, 0o755, read(root, f"cross/debian/{name}").replace(b"\n#DEBHELPER#\n", b""))
              for name in DEBIAN_SCRIPTS]
    return ar((
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", lzma.compress(tar(tree(about), mtime, "./"), **XZ)),
        ("data.tar.xz", lzma.compress(tar(members, mtime, "./"), **XZ)),
    ), mtime)


def control(root, version, architecture, size):
    """The control file that dpkg-gencontrol would make of debian/control, without the dependencies of a dynamic
    program."""
    about = project(root)
    source, package = (paragraph(text) for text in read(root, "cross/debian/control").decode().split("\n\n"))
    depends = [name.strip() for name in package["Depends"].split(",") if "${" not in name]
    fields = (
        ("Package", package["Package"]),
        ("Version", f"{version}-1"),
        ("Architecture", architecture),
        ("Maintainer", about["MAINTAINER"]),
        ("Installed-Size", str(size)),
        ("Depends", ", ".join(depends)),
        ("Section", source["Section"]),
        ("Priority", source["Priority"]),
        ("Homepage", about["HOMEPAGE"]),
        ("Description", package["Description"]),
    )
    return "".join(f"{name}: {value}\n" for name, value in fields if value).encode()


def paragraph(text):
    """The fields of a paragraph. Continuation lines keep their leading space."""
    return dict(re.findall(r"^([A-Za-z-]+): (.*(?:\n .*)*)$", text.strip("\n"), re.M))
