# refusing.py RULE... -- COMMAND...
# Runs a command under a seccomp filter, as in a sandbox: system calls that match a rule fail with EPERM. A rule is
# the name of a call and values of its arguments, numbered from 0: "setsockopt 1=0 2=15". The filter also applies to all
# child processes.
import ctypes
import os
import platform
import struct
import sys

MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "setsockopt": 54}),
    "aarch64": (0xC00000B7, {"socket": 198, "setsockopt": 208}),
}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050001


def filter_of(rules):
    arch, calls = MACHINES[platform.machine()]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, ALLOW)]
    for rule in rules:
        name, *values = rule.split()
        tests = [(0, calls[name])]
        tests += [(16 + 8 * int(at), int(value)) for at, value in (one.split("=") for one in values)]
        for number, (offset, value) in enumerate(tests):
            # If this test fails, jump to the next rule.
            skipped = 2 * (len(tests) - number - 1) + 1
            program += [(LOAD, 0, 0, offset), (EQUAL, 0, skipped, value)]
        program.append((RETURN, 0, 0, REFUSE))
    return program + [(RETURN, 0, 0, ALLOW)]


# struct sock_fprog of <linux/filter.h>
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


end = sys.argv.index("--")
program = filter_of(sys.argv[1:end])
code = b"".join(struct.pack("HBBI", *each) for each in program)
prctl = ctypes.CDLL(None, use_errno=True).prctl
# PR_SET_NO_NEW_PRIVS (38), which users other than root need, then PR_SET_SECCOMP (22) with the filter.
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.byref(Program(len(program), code)), 0, 0):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
