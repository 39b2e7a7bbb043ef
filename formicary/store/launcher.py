"""Becomes a Postgres program, as another user where root starts it, whose life ends with its starter's.

Run as a script, by path, so that it imports nothing of Formicary and costs a few milliseconds:
``python -I -S launcher.py STARTER_PID UID GID CAPABILITY STOP_SIGNAL PROGRAM ARGUMENT…``; UID -1 stays, CAPABILITY -1
keeps none, STOP_SIGNAL 0 outlives the starter.

Root must not run Postgres, and a user like ``nobody`` cannot pass a folder like ``/root`` (mode 0700). Instead of
opening such folders to everyone, the new user is given one *ambient capability*, DAC_READ_SEARCH or DAC_OVERRIDE, by
which it passes them; the data folder itself belongs to it. See capabilities(7). The death signal is set last: a change
of user clears it, and it is bound to the *thread* that started this process (prctl(2)).
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
#: Without it a change of user drops all capabilities, and access(2), which Postgres asks about programs, ignores them.
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Changes the user, ties this process to its starter and executes the program."""
    starter, uid, gid, capability, stop_signal = map(int, arguments[:5])
    program = arguments[5:]
    if uid >= 0:
        _become(uid, gid, capability)
    os.umask(0o077)
    if stop_signal and sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != starter:
            sys.exit("the process that started this one is gone")
    os.execv(program[0], program)


def _become(uid: int, gid: int, capability: int) -> None:
    if capability >= 0:
        _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability >= 0:
        _keep_only(capability)
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _keep_only(capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if _libc().capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(*arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:5]]
    if _libc().prctl(*padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl{arguments}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main(sys.argv[1:])
