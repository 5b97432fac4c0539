"""Checks that a binary is static and for the right machine. A router would notice a wrong one only when it fails to
start."""

import struct

from .archive import Fault

# By the first word of the target: bits, byte order, e_machine of elf(5).
MACHINES = {
    "x86_64": (64, "<", 62),
    "aarch64": (64, "<", 183),
    "armv7": (32, "<", 40),
    "arm": (32, "<", 40),
    "mipsel": (32, "<", 8),
    "mips": (32, ">", 8),
    "riscv64gc": (64, "<", 243),
    "i686": (32, "<", 3),
}
PT_DYNAMIC, PT_INTERP = 2, 3
DT_NULL, DT_NEEDED = 0, 1


def check(data, target, name):
    """Raises Fault if the binary is not a static one for the target."""
    bits, order, machine = MACHINES[target.split("-")[0]]
    try:
        if data[:4] != b"\x7fELF":
            raise Fault(f"{name} is not an ELF binary: remove it, and cross/build {target} makes another")
        found = 32 * data[4], {1: "<", 2: ">"}.get(data[5])
        if found != (bits, order) or struct.unpack_from(order + "HH", data, 16)[0] not in (2, 3) \
                or struct.unpack_from(order + "H", data, 18)[0] != machine:
            raise Fault(f"{name} is not a binary for {target}: remove it, and cross/build {target} makes another")
        if needs(data, bits, order):
            raise Fault(f"{name} is dynamically linked: remove it, and cross/build {target} makes another")
    except (struct.error, IndexError):
        raise Fault(f"{name} is cut short: remove it, and cross/build {target} makes another") from None


def needs(data, bits, order):
    """Whether the binary needs an interpreter or a library. A static position-independent binary also has a dynamic
    section, but without DT_NEEDED."""
    wide = bits == 64
    start = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    for number in range(count):
        at = start + number * size
        kind = struct.unpack_from(order + "I", data, at)[0]
        if kind == PT_INTERP:
            return True
        if kind == PT_DYNAMIC:
            offset = struct.unpack_from(order + ("Q" if wide else "I"), data, at + (8 if wide else 4))[0]
            length = struct.unpack_from(order + ("Q" if wide else "I"), data, at + (32 if wide else 16))[0]
            pair = order + ("qQ" if wide else "iI")
            for entry in range(offset, offset + length, struct.calcsize(pair)):
                tag = struct.unpack_from(pair, data, entry)[0]
                if tag == DT_NULL:
                    break
                if tag == DT_NEEDED:
                    return True
    return False
