"""OpenWrt's packages: the same content as .ipk for opkg (up to 24.10) and as .apk (from 25.12 on), with what OpenWrt's own
build system adds to each (include/package-pack.mk): scripts that hand over to /lib/functions.sh of the router, which makes
the user and enables, starts and stops the service."""

import hashlib
from typing import NamedTuple, Optional

from . import adb
from .archive import File, gzip, gzip_for_flash, tar, tree
from .contents import NEEDS, OPENWRT, OPENWRT_CONFFILES, TITLE, gather, luci, project


class Package(NamedTuple):
    """What both formats say of a package."""

    name: str
    version: str
    architecture: str
    section: str
    description: str
    depends: tuple
    user: Optional[str]
    conffiles: tuple
    files: list
    # What is done after the installation beyond what every package does.
    installed: str
    # Of cross/project.
    project: dict


def net_pulse(root, binary, version, architecture):
    """The program."""
    return Package(
        "net-pulse", f"{version}-r1", architecture, "net", f"{TITLE}. {NEEDS}", (), "net-pulse:net-pulse",
        OPENWRT_CONFFILES, gather(root, OPENWRT, binary), ADDRESS, project(root),
    )


def luci_app(root, version):
    """The page in LuCI that sets it up, the same for every machine."""
    return Package(
        "luci-app-net-pulse", f"{version}-r1", "all", "luci",
        "LuCI support for Net-Pulse. It needs LuCI and the package net-pulse.",
        ("luci-base", "net-pulse"), None, (), luci(root), LUCI_MENU, project(root),
    )


# Where its page is, for a person who installs it: as in openwrt/net/net-pulse/Makefile.
ADDRESS = '[ -n "${IPKG_INSTROOT}" ] || [ "${PKG_UPGRADE}" = 1 ] || /etc/init.d/net-pulse address || :\n'
# LuCI keeps its menu, and rpcd who may do what, until they are told of new files.
LUCI_MENU = '[ -n "${IPKG_INSTROOT}" ] || {\n\trm -rf /tmp/luci-indexcache* /tmp/luci-modulecache\n' \
    '\t/etc/init.d/rpcd reload\n}\n'

FUNCTIONS = '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0\n. "${IPKG_INSTROOT}/lib/functions.sh"\n'
QUIET = '[ "${IPKG_NO_SCRIPT}" = 1 ] && exit 0\n'


def ipk(package, mtime):
    """A whole .ipk: a compressed tar file, never ar, of three members in this order."""
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
        # default_postinst runs it, between making the user and starting the service.
        about.append(File("postinst-pkg", 0o755, f"#!/bin/sh\n{package.installed}".encode()))
    members = (
        ("./debian-binary", b"2.0\n"),
        ("./data.tar.gz", gzip_for_flash(data)),
        ("./control.tar.gz", gzip(tar(tree(about), mtime, "./"))),
    )
    return gzip(tar([File(name, 0o644, content) for name, content in members], mtime))


def apk(package, mtime):
    """A whole .apk. What opkg keeps beside its packages lies within these: /lib/functions.sh and sysupgrade look there."""
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
