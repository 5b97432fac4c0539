"""Debian's packages: an ar file of a version, a tar file about the package and a tar file of the package."""

import hashlib
import lzma
import re
import time

from .archive import Fault, File, ar, gzip, tar, tree
from .contents import DEBIAN, DEBIAN_SCRIPTS, MAINTAINER, gather, read

# As dpkg-deb has them: what unpacks the standard preset takes 9 MB, which a Pi Zero has.
XZ = {"format": lzma.FORMAT_XZ, "check": lzma.CHECK_CRC32, "preset": 6 | lzma.PRESET_EXTREME}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def write(root, binary, version, architecture, mtime):
    """A whole .deb of the version X.Y.Z-1."""
    fixed = {"VERSION": f"{version}-1", "MAINTAINER": MAINTAINER, "DATE": date(mtime)}
    files = gather(root, DEBIAN, binary)
    files.append(File("usr/share/doc/net-pulse/changelog.Debian.gz", 0o644,
                      gzip(fill(read(root, "cross/debian/changelog"), fixed))))
    members = tree(files)
    # In kilobytes, each file rounded up and each directory counted as one: dpkg-gencontrol's way.
    size = sum(1 if member.data is None else -(-len(member.data) // 1024) for member in members)
    control = fill(read(root, "cross/debian/control"), {
        **fixed,
        "ARCHITECTURE": architecture,
        "INSTALLED_SIZE": str(size),
        "DEPENDS": ", ".join(read(root, "cross/debian/depends").decode().split("\n")).strip(", "),
    })
    sums = "".join(f"{hashlib.md5(m.data).hexdigest()}  {m.path}\n" for m in members if m.data is not None)
    conffiles = "".join(f"/{m.path}\n" for m in members if m.data is not None and m.path.startswith("etc/"))
    about = [File("control", 0o644, control), File("md5sums", 0o644, sums.encode()),
             File("conffiles", 0o644, conffiles.encode())]
    about += [File(name, 0o755, read(root, f"cross/debian/{name}")) for name in DEBIAN_SCRIPTS]
    return ar((
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", lzma.compress(tar(tree(about), mtime, "./"), **XZ)),
        ("data.tar.xz", lzma.compress(tar(members, mtime, "./"), **XZ)),
    ), mtime)


def fill(template, values):
    """The template with each @NAME@ replaced. A field that is left empty is left out."""
    text = template.decode()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    left = re.search("@[A-Z_]+@", text)
    if left:
        raise Fault(f"a template in cross/debian has {left[0]}, which nobody fills in")
    return "".join(line for line in text.splitlines(True) if not line.rstrip().endswith("Depends:")).encode()


def date(epoch):
    """As a Debian changelog has it, in English whatever the locale says."""
    t = time.gmtime(epoch)
    return f"{DAYS[t.tm_wday]}, {t.tm_mday:02} {MONTHS[t.tm_mon - 1]} {t.tm_year} " \
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
