#!/usr/bin/python3
"""Runs a program on a kernel that lacks something: without.py WHAT[,WHAT...] PROGRAM [ARGUMENT...]

The system calls are refused by a seccomp filter, as a container or an older kernel would; it needs no privileges.
"""
import ctypes
import errno
import os
import platform
import struct
import sys

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
IO_URING_SETUP = 425
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
MFD_HUGETLB = 4
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # of a word; jumps by a constant
AT_NUMBER, AT_ARCH, AT_SECOND = 0, 4, 24  # in seccomp_data

# What the call is, which bits its second argument has to have (None: any), and what it fails with.
WAYS = {
    "io_uring": (IO_URING_SETUP, None, errno.ENOSYS),
    "io_uring_allowed": (IO_URING_SETUP, None, errno.EPERM),
    "huge_memfd": (MEMFD_CREATE.get(platform.machine()), MFD_HUGETLB, errno.EINVAL),
}


def can():
    return platform.machine() in AUDIT_ARCH


def rule(call, bits, error):
    """The instructions that refuse one call and else go on."""
    refuse = (RETURN, 0, 0, RET_ERRNO | error)
    if bits is None:
        return [(LOAD, 0, 0, AT_NUMBER), (EQUAL, 0, 1, call), refuse]
    return [(LOAD, 0, 0, AT_NUMBER), (EQUAL, 0, 3, call), (LOAD, 0, 0, AT_SECOND), (ANY_BIT, 0, 1, bits), refuse]


def lose(*ways):
    """From here on this process, and what it becomes, is without them."""
    steps = [(LOAD, 0, 0, AT_ARCH), (EQUAL, 1, 0, AUDIT_ARCH[platform.machine()]), (RETURN, 0, 0, RET_ALLOW)]
    for way in ways:
        steps += rule(*WAYS[way])
    steps.append((RETURN, 0, 0, RET_ALLOW))
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    for args in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, MODE_FILTER, ctypes.create_string_buffer(program))):
        if libc.prctl(*args, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    lose(*sys.argv[1].split(","))
    os.execv(sys.argv[2], sys.argv[2:])
