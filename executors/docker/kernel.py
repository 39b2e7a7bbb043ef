"""What the kernel of this machine says of containers: engines miss at times that one was killed for want of memory.

An engine hears of that from the container's control group, which is gone with the container; on a busy machine it asks
too late, and Podman never asks. The kernel's own messages name the group, and with it the container. They need no
setup, but the right to read them, and of many kills within seconds the kernel tells of a few only.
"""

import errno
import os
from collections.abc import Iterator

_MESSAGES = "/dev/kmsg"
_RECORD_BYTES = 8192
#: More than the kernel keeps.
_MOST_RECORDS = 100_000
_KILL = b"oom-kill:"


def was_out_of_memory(container: str) -> bool:
    """Tells whether the kernel says that it killed a process of a container, by its id, for want of memory. Blocks."""
    group = container.encode()
    return any(_KILL in record and group in record for record in _records())


def _records() -> Iterator[bytes]:
    """Yields the kernel's messages as far as there are any that may be read."""
    try:
        descriptor = os.open(_MESSAGES, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(_MOST_RECORDS):
            try:
                yield os.read(descriptor, _RECORD_BYTES)
            except OSError as exc:
                if exc.errno != errno.EPIPE:  # that one was overwritten meanwhile; the next is there
                    return
    finally:
        os.close(descriptor)
