"""Contents of each package: tables of a file in this tree, its path on the machine, and its mode. Modes never come from
the tree, because a umask or a checkout may have changed them. LuCI's folders are packed completely: there, a file that
begins with #! is executable. BINARY stands for the program."""

import os
import re

from .archive import Fault, File, gzip

BINARY = ""
TITLE = "Traffic history and web page of a router or a small server"
NEEDS = "It needs no library, no other package, no service and no configuration."

# A file whose target path ends with .gz is compressed.
DEBIAN = (
    (BINARY, "usr/bin/net-pulse", 0o755),
    ("cross/debian/net-pulse.service", "usr/lib/systemd/system/net-pulse.service", 0o644),
    ("cross/debian/net-pulse.sysusers", "usr/lib/sysusers.d/net-pulse.conf", 0o644),
    ("cross/debian/net-pulse.default", "etc/default/net-pulse", 0o644),
    ("cross/debian/net-pulse.ufw", "etc/ufw/applications.d/net-pulse", 0o644),
    ("cross/debian/net-pulse.8", "usr/share/man/man8/net-pulse.8.gz", 0o644),
    ("cross/debian/copyright", "usr/share/doc/net-pulse/copyright", 0o644),
    ("CHANGELOG.md", "usr/share/doc/net-pulse/changelog.gz", 0o644),
    ("cross/debian/changelog", "usr/share/doc/net-pulse/changelog.Debian.gz", 0o644),
    ("cross/debian/lintian-overrides", "usr/share/lintian/overrides/net-pulse", 0o644),
    ("cross/debian/completions/net-pulse.bash", "usr/share/bash-completion/completions/net-pulse", 0o644),
    ("cross/debian/completions/net-pulse.fish", "usr/share/fish/vendor_completions.d/net-pulse.fish", 0o644),
    ("cross/debian/completions/_net-pulse", "usr/share/zsh/vendor-completions/_net-pulse", 0o644),
)
DEBIAN_SCRIPTS = ("postinst", "prerm", "postrm")

OPENWRT = (
    (BINARY, "usr/sbin/net-pulse", 0o755),
    ("openwrt/net/net-pulse/files/net-pulse.init", "etc/init.d/net-pulse", 0o755),
    ("openwrt/net/net-pulse/files/net-pulse.config", "etc/config/net-pulse", 0o600),
    ("openwrt/net/net-pulse/files/net-pulse.uci-defaults", "etc/uci-defaults/net-pulse", 0o755),
    ("openwrt/net/net-pulse/files/net-pulse.upgrade", "lib/upgrade/net-pulse.sh", 0o644),
    ("openwrt/net/net-pulse/files/net-pulse.keep", "lib/upgrade/keep.d/net-pulse", 0o644),
)
OPENWRT_CONFFILES = ("etc/config/net-pulse",)

# Folders of a LuCI application and their targets, as in luci.mk.
LUCI = (("openwrt/applications/luci-app-net-pulse/htdocs", "www/"), ("openwrt/applications/luci-app-net-pulse/root", ""))

# For machines without these package managers: all files in one folder.
TARBALL = (
    (BINARY, "net-pulse", 0o755),
    ("LICENSE", "LICENSE", 0o644),
    ("cross/debian/copyright", "copyright", 0o644),
    ("README.md", "README.md", 0o644),
    ("CHANGELOG.md", "CHANGELOG.md", 0o644),
    ("SECURITY.md", "SECURITY.md", 0o644),
    ("docs/access.md", "docs/access.md", 0o644),
    ("docs/api.md", "docs/api.md", 0o644),
    ("docs/backup.md", "docs/backup.md", 0o644),
    ("docs/configuration.md", "docs/configuration.md", 0o644),
    ("docs/figures.md", "docs/figures.md", 0o644),
    ("docs/install.md", "docs/install.md", 0o644),
    ("docs/settings.md", "docs/settings.md", 0o644),
    ("docs/troubleshooting.md", "docs/troubleshooting.md", 0o644),
    ("cross/debian/net-pulse.service", "net-pulse.service", 0o644),
    ("cross/debian/net-pulse.sysusers", "net-pulse.sysusers", 0o644),
    ("cross/debian/net-pulse.default", "net-pulse.default", 0o644),
    ("cross/debian/net-pulse.8", "net-pulse.8", 0o644),
    ("cross/debian/completions/net-pulse.bash", "completions/net-pulse.bash", 0o644),
    ("cross/debian/completions/net-pulse.fish", "completions/net-pulse.fish", 0o644),
    ("cross/debian/completions/_net-pulse", "completions/_net-pulse", 0o644),
)


def version(manifest):
    """The version in Cargo.toml. Only X.Y.Z: package managers interpret longer versions differently."""
    match = re.search(r'^\[package\]\n(?:[^\[\n].*\n|\n)*?version = "([^"]*)"', manifest, re.M)
    if not match or not re.fullmatch(r"\d+\.\d+\.\d+", match[1]):
        raise Fault(f"Cargo.toml has no version X.Y.Z, but {match[1] if match else 'none'}")
    return match[1]


def read(root, path):
    """Reads a file of the tree."""
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read()
    except OSError as error:
        raise Fault(f"{path} cannot be packed: {error.strerror.lower()}") from None


def project(root):
    """The variables of cross/project."""
    found = dict(re.findall(r'^([A-Z_]+)="(.*)"$', read(root, "cross/project").decode(), re.M))
    for name, value in found.items():
        if re.search(r'["$`]|\\\\', value):
            raise Fault(f"cross/project: {name} has a character that is special in shells: one of \", $ and `, or two \\")
    return found


def gather(root, table, binary, top=""):
    """The files of a table, below the folder `top`."""
    files = []
    for source, path, mode in table:
        data = binary if source == BINARY else read(root, source)
        files.append(File(top + path, mode, gzip(data) if path.endswith(".gz") else data))
    return files


def luci(root):
    """All files in LuCI's folders, except hidden files and backups of editors."""
    files = []
    for folder, place in LUCI:
        if not os.path.isdir(os.path.join(root, folder)):
            raise Fault(f"{folder} cannot be packed: there is no such folder")
        for here, folders, names in os.walk(os.path.join(root, folder)):
            folders.sort()
            for name in sorted(names):
                if name.startswith(".") or name.endswith("~"):
                    continue
                source = os.path.relpath(os.path.join(here, name), root)
                data = read(root, source)
                path = place + os.path.relpath(source, folder)
                files.append(File(path, 0o755 if data.startswith(b"#!") else 0o644, data))
    return files
