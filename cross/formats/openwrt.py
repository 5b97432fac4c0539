"""Writes OpenWrt packages: .ipk for opkg (up to 24.10) and .apk (from 25.12 on), with the same contents. Both get the
same scripts as from OpenWrt's build system (include/package-pack.mk): they call /lib/functions.sh of the router, which
creates the user and enables, starts and stops the service."""

import hashlib
from typing import NamedTuple, Optional

from . import adb
from .archive import File, gzip, gzip_for_flash, tar, tree
from .contents import NEEDS, OPENWRT, OPENWRT_CONFFILES, TITLE, gather, luci, project


class Package(NamedTuple):
    """Data of a package, for both formats."""

    name: str
    version: str
    architecture: str
    section: str
    description: str
    depends: tuple
    user: Optional[str]
    conffiles: tuple
    files: list
    # Shell commands after the installation, in addition to those of every package.
    installed: str
    # Values of cross/project.
    project: dict


def net_pulse(root, binary, version, architecture):
    """The package of the program."""
    return Package(
        "net-pulse", f"{version}-r1", architecture, "net", f"{TITLE}. {NEEDS}", (), "net-pulse:net-pulse",
        OPENWRT_CONFFILES, gather(root, OPENWRT, binary), ADDRESS, project(root),
    )


def luci_app(root, version):
    """The package of the LuCI application, the same for every architecture."""
    return Package(
        "luci-app-net-pulse", f"{version}-r1", "all", "luci",
        "LuCI support for Net-Pulse. It needs LuCI and the package net-pulse.",
        ("luci-base", "net-pulse"), None, (), luci(root), LUCI_MENU, project(root),
    )


# Prints the URL of the page after an installation, as in openwrt/net/net-pulse/Makefile.
ADDRESS = '[ -n "${IPKG_INSTROOT}" ] || [ "${PKG_UPGRADE}" = 1 ] || /etc/init.d/net-pulse address || :\n'
# Clears LuCI's cached menu and makes rpcd read the new ACL.
LUCI_MENU = '[ -n "${IPKG_INSTROOT}" ] || {\n\trm -rf /tmp/luci-indexcache* /tmp/luci-modulecache\n' \
    '\t/etc/init.d/rpcd reload\n}\n'

FUNCTIONS = '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0\n. "${IPKG_INSTROOT}/lib/functions.sh"\n'
QUIET = '[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0\n'


def ipk(package, mtime):
    """The bytes of an .ipk: a gzipped tar file (not ar) with three members in this order."""
    data = tar(tree(package.files), mtime, "./")
    fields = (
        ("Package", package.name),
        ("Version", package.version),
        ("Depends", ", ".join(package.depends)),
        ("License", "MIT"),
        ("Section", package.section),
        ("Require-User", package.user),
        ("SourceDateEpoch", str(mtime)),
        ("URL", package.project["HOMEPAGE"]),
        ("Maintainer", package.project["MAINTAINER"]),
        ("Architecture", package.architecture),
        ("Installed-Size", str(len(data))),
        ("Description", package.description),
    )
    about = [
        File("control", 0o644, "".join(f"{name}: {value}\n" for name, value in fields if value).encode()),
        File("postinst", 0o755, f'#!/bin/sh\n{QUIET}{FUNCTIONS}default_postinst "$0" "$@"\n'.encode()),
        File("prerm", 0o755, f'#!/bin/sh\n{FUNCTIONS}default_prerm "$0" "$@"\n'.encode()),
    ]
    if package.conffiles:
        about.append(File("conffiles", 0o644, "".join(f"/{path}\n" for path in package.conffiles).encode()))
    if package.installed:
        # default_postinst runs it after it creates the user and before it starts the service.
        about.append(File("postinst-pkg", 0o755, f"#!/bin/sh\n{package.installed}".encode()))
    members = (
        ("./debian-binary", b"2.0\n"),
        ("./data.tar.gz", gzip_for_flash(data)),
        ("./control.tar.gz", gzip(tar(tree(about), mtime, "./"))),
    )
    return gzip(tar([File(name, 0o644, content) for name, content in members], mtime))


def apk(package, mtime):
    """The bytes of an .apk. It contains the lists that opkg keeps in its own directory, because /lib/functions.sh and
    sysupgrade read them."""
    files = list(package.files)
    notes = f"lib/apk/packages/{package.name}"
    if package.user:
        files.append(File(f"{notes}.rusers", 0o644, f"{package.user}\n".encode()))
    listed = sorted((f"/{file.path}\n" for file in files), key=str.encode)
    files.append(File(f"{notes}.list", 0o644, "".join(listed).encode()))
    if package.conffiles:
        contents = {file.path: file.data for file in files}
        sums = (f"/{path} {hashlib.sha256(contents[path]).hexdigest()}\n" for path in package.conffiles)
        files.append(File(f"{notes}.conffiles", 0o644, "".join(f"/{path}\n" for path in package.conffiles).encode()))
        files.append(File(f"{notes}.conffiles_static", 0o644, "".join(sums).encode()))

    names = f'export root="${{IPKG_INSTROOT}}"\nexport pkgname="{package.name}"\n'
    install = f"{QUIET}{FUNCTIONS}{names}add_group_and_user\ndefault_postinst\n{package.installed}"
    scripts = {
        "post-install": f"#!/bin/sh\n{install}",
        "post-upgrade": f"#!/bin/sh\nexport PKG_UPGRADE=1\n{install}",
        "pre-deinstall": f"#!/bin/sh\n{FUNCTIONS}{names}default_prerm\n",
    }
    info = {
        "name": package.name,
        "version": package.version,
        "description": package.description,
        "arch": "noarch" if package.architecture == "all" else package.architecture,
        "license": "MIT",
        "origin": "net-pulse",
        "maintainer": package.project["MAINTAINER"],
        "url": package.project["HOMEPAGE"],
        "depends": package.depends,
    }
    return adb.write(info, tree(files), scripts, mtime)
