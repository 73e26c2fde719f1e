"""One service per production folder: two would take each other's running cameras for orphans."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(RuntimeError):
    """Another service works on this production folder."""


@contextmanager
def sole_service(redux: Path) -> Iterator[None]:
    """Hold REDUX/qlstream/service.lock. The kernel lets go of it when the process ends, however it ends.

    Raises
    ------
    AlreadyRunning : it is held; the message names the process
    """
    path = redux / "qlstream" / "service.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise AlreadyRunning(
                f"{redux} is being worked on by {holder}; stop that one first, or give another --redux "
                "(`qlstream dashboard` may run beside it)"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)
