"""What the tests that run finished binaries have in common: the table of targets, a network of their own, HTTP, and how a
check fails. Nothing in here knows what is right."""

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
# Another directory than dist/ is for trying binaries that are not meant to be shipped.
DIST = Path(os.environ.get("DIST", ROOT / "dist")).resolve()
CANNOT_RUN_HERE = 77

Target = namedtuple("Target", "name limit_bytes emulator cpu")
Answer = namedtuple("Answer", "status headers body")


class Wrong(Exception):
    """A check that failed: one sentence, with what was expected and what was found."""


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
    """The first answer of `look` that is one. What it raised last tells why there was none."""
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
    """The command in namespaces of its own: nobody else's interfaces and ports, and nothing of it outlives it."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *root, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]


class Alone:
    """Runs commands alone, several at a time where threads ask, and ends those that are left whatever happens."""

    def __init__(self):
        self.running = []

    def __enter__(self):
        # A SIGTERM cleans up like everything else that ends this.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def run(self, *command):
        # What is set for a daemon outside is not for these.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NETPULSE_")}
        pipe = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(alone(*command), env=environment, text=True, **pipe)
        self.running.append(process)
        said, _ = process.communicate()
        return process.returncode, said

    def __exit__(self, *_):
        # Their first process is killed with them, and with it everything in the namespace.
        for process in self.running:
            process.kill()


def can_be_alone():
    return subprocess.run(alone("true"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def skip(why):
    print(f"skipped: {why}")
    sys.exit(CANNOT_RUN_HERE)


def need(commands):
    """`commands`: the command, and the Debian package that has it."""
    missing = sorted({package for command, package in commands if not shutil.which(command)})
    if missing:
        skip(f"not installed: {' '.join(missing)}")
