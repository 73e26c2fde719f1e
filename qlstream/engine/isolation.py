"""What keeps a worker process from harming the others: limits on memory, threads and life time."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
import threading
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

# Cameras are the parallelism: a library that starts threads of its own would only fight the other workers.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Limits:
    """Bounds of one worker process.

    Attributes
    ----------
    memory_mb : private memory it may ask for [MB]; 0 sets no limit
    tasks : cameras after which it is replaced by a fresh process; 0 never
    nice : added to its niceness, so that ingest and dashboard answer while all cores reduce
    oom_score_adj : added to its badness, so that the kernel takes a worker before the service
    """

    memory_mb: int = 4000
    tasks: int = 0
    nice: int = 5
    oom_score_adj: int = 500


def set_one_thread() -> None:
    """Make the processes started from here on compute with one thread each."""
    os.environ.update(ONE_THREAD)


def isolate(limits: Limits) -> None:
    """Apply `limits` to this worker process, and end it when the service is gone.

    A limit that the system does not know or refuses is left out: it guards the others, this worker runs without.
    """
    faulthandler.enable()
    if limits.memory_mb > 0:
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_mb * 2**20, hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(limits.oom_score_adj))
    with contextlib.suppress(OSError):
        os.nice(limits.nice)
    threading.Thread(target=_die_with_the_service, name="die-with-the-service", daemon=True).start()


def _die_with_the_service() -> None:
    """Without this a worker would outlive a service that was killed with -9, and reduce a camera for nobody."""
    service = multiprocessing.parent_process()
    if service is not None:
        connection.wait([service.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
