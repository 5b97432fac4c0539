"""Helpers for the tests that run finished binaries: table of targets, network namespaces, HTTP, and failed checks."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Set DIST to test binaries in another directory.
DIST = Path(os.environ.get("DIST", ROOT / "dist")).resolve()
CANNOT_RUN_HERE = 77

Target = namedtuple("Target", "name limit_bytes emulator cpu")
Answer = namedtuple("Answer", "status headers body")


class Wrong(Exception):
    """A failed check, with the expected and the found value."""


def expect(what, expected, found):
    if expected != found:
        raise Wrong(f"{what}\n  expected {expected!r}\n  found    {found!r}")


def parse_targets(text):
    rows = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [Target(row[0], int(row[1]), *(row[2].split(":") if row[2] != "-" else (None, None))) for row in rows]


def targets():
    return parse_targets((ROOT / "cross/targets").read_text())


def binary(name):
    return DIST / name / "net-pulse"


def until(seconds, what, look):
    """Calls `look` until its result is true, and returns it. On timeout, the error has the last exception of `look`."""
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            found = look()
            if found:
                return found
        except (OSError, http.client.HTTPException, Wrong) as error:
            last = error
        if time.monotonic() > deadline:
            raise Wrong(f"{what}: not within {seconds} s" + (f", {last}" if last else ""))
        time.sleep(0.1)


def get(address, path, headers=None, seconds=30):
    connection = http.client.HTTPConnection(*address, timeout=seconds)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def get_json(address, path):
    answer = get(address, path)
    expect(f"the status of {path}", 200, answer.status)
    return json.loads(answer.body)


def alone(*command):
    """The command line that runs a command in its own namespaces, without the machine's interfaces and ports. All its
    processes end with it."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *root, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]


class Alone:
    """Runs commands in namespaces, also from several threads, and kills the remaining ones at the end."""

    def __init__(self):
        self.running = []

    def __enter__(self):
        # SIGTERM becomes an exception, so that `__exit__` runs.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def run(self, *command):
        # Settings of the caller must not reach the tested daemon.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NETPULSE_")}
        pipe = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(alone(*command), env=environment, text=True, **pipe)
        self.running.append(process)
        said, _ = process.communicate()
        return process.returncode, said

    def __exit__(self, *_):
        # --kill-child kills the first process of the namespace, and so all others in it.
        for process in self.running:
            process.kill()


def can_be_alone():
    return subprocess.run(alone("true"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def skip(why):
    print(f"skipped: {why}")
    sys.exit(CANNOT_RUN_HERE)


def need(commands):
    """Skips if a command is missing. `commands` has pairs of a command and its Debian package."""
    missing = sorted({package for command, package in commands if not shutil.which(command)})
    if missing:
        skip(f"not installed: {' '.join(missing)}")
