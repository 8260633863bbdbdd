"""Restrict the rights of the current process, and report which restrictions are in force. Linux only.

There are two steps, since Python and PyTorch must be loaded in between: `leave_network` while the process has a single
thread, then `drop_rights` when all libraries are loaded and nothing of the suspect is.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from typing import NamedTuple

from wootz.suspects.files.limits import Limits

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = (
    444,
    445,
    446,
)  # system calls; the numbers are the same on all architectures
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {
    1: 13,
    2: 14,
    3: 15,
    4: 15,
}  # Landlock ABI version -> number of file access rights; 16 from version 5 on
_CAPABILITIES_V3 = 0x20080522
_SPARE_TASKS = 64
_THREAD_BYTES = 160 << 20
"""Address space that a thread reserves: a stack and an arena of the allocator."""
_PROCESSOR_FILES = ("/proc/cpuinfo", "/sys/devices/system/cpu")
"""The description of the processor. PyTorch and ONNX Runtime read it when they first run certain operations, such as a
copy from float16 to float32."""


class Isolation(NamedTuple):
    """The restrictions under which a suspect was read and queried.

    Attributes:
        process: A separate process without the environment variables.
        rlimits: Limits on memory, processor time, written files and open files.
        network: No network, by a separate network namespace.
        landlock: No files but those of the libraries, no writing and no new programs, by Landlock.
    """

    process: bool = False
    rlimits: bool = False
    network: bool = False
    landlock: bool = False

    @property
    def summary(self) -> str:
        """The names of the restrictions in force, and of those that are not."""
        active = [name for name, in_force in self._asdict().items() if in_force]
        missing = [name for name, in_force in self._asdict().items() if not in_force]
        return f"isolation: {', '.join(active) or 'none'}" + (f"; without: {', '.join(missing)}" if missing else "")


def leave_network() -> tuple[bool, bool]:
    """Enter a network namespace without interfaces; return whether that and a new user namespace succeeded.

    Unprivileged users need a new user namespace for this; root does not, and keeps access to its libraries.
    """
    if sys.platform != "linux":
        return False, False
    libc = _libc()
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.geteuid() == 0:
        return libc.unshare(_CLONE_NEWNET) == 0, False
    isolated = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    return isolated, isolated


def drop_rights(limits: Limits, *, threads: int, own_users: bool) -> tuple[bool, bool]:
    """Set resource limits, drop capabilities, restrict file access; return whether limits and Landlock are in force.

    The address space may grow by `limits.memory_bytes` beyond what the libraries and the threads use. The number of
    tasks is limited in a new user namespace only, since elsewhere the limit would count all processes of the user.
    """
    if sys.platform != "linux":
        return False, False
    pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: SIM115
    memory = pages * os.sysconf("SC_PAGE_SIZE") + threads * _THREAD_BYTES + limits.memory_bytes
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        *(((resource.RLIMIT_NPROC, _SPARE_TASKS + threads),) if own_users else ()),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock = _landlock(libc)
    libc.capset(struct.pack("<Ii", _CAPABILITIES_V3, 0), struct.pack("<6I", 0, 0, 0, 0, 0, 0))
    return True, landlock


def _landlock(libc: ctypes.CDLL) -> bool:
    """Allow reading Python's folders and the processor's description only; return success.

    Nothing may be written, executed, connected to or signalled.
    """
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    tcp, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    attributes = struct.pack("<QQQ", files, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    folders = {os.path.realpath(entry) for entry in (*sys.path, sys.base_prefix) if os.path.isdir(entry)}
    for path in (*folders, *filter(os.path.exists, _PROCESSOR_FILES)):
        rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0)
        os.close(descriptor)
    restricted: bool = libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return restricted


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
