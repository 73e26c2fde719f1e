import asyncio
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from qlstream.engine.isolation import Limits
from qlstream.engine.pool import NoWorker, Worker, WorkerLost, how_it_ended


@pytest.fixture
async def worker():
    worker = Worker(Limits(memory_mb=1500))
    yield worker
    await worker.stop()


async def test_a_worker_returns_the_value_of_its_task_from_another_process(worker):
    assert await worker.run(os.getpid, timeout=30) != os.getpid()


async def test_an_exception_of_the_task_is_raised_and_the_worker_lives_on(worker):
    pid = await worker.run(os.getpid, timeout=30)

    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 1, 0, timeout=30)

    assert await worker.run(os.getpid, timeout=30) == pid


async def test_a_worker_that_exits_is_lost_with_its_exit_code_and_replaced(worker):
    pid = await worker.run(os.getpid, timeout=30)

    with pytest.raises(WorkerLost, match="exit code 7"):
        await worker.run(os._exit, 7, timeout=30)

    assert await worker.run(os.getpid, timeout=30) != pid


async def test_a_worker_killed_by_the_kernel_is_told_from_one_that_failed(worker):
    pid = await worker.run(os.getpid, timeout=30)
    task = asyncio.create_task(worker.run(time.sleep, 60, timeout=30))
    await asyncio.sleep(0.3)

    os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerLost, match=r"SIGKILL \(out of memory"):
        await task


async def test_a_worker_killed_while_idle_is_replaced_without_losing_a_task(worker):
    pid = await worker.run(os.getpid, timeout=30)

    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.4)

    assert await worker.run(os.getpid, timeout=30) != pid


async def test_a_hung_worker_is_killed_by_its_time_out(worker):
    pid = await worker.run(os.getpid, timeout=30)

    with pytest.raises(WorkerLost, match=r"hung: killed after 0\.5 s"):
        await worker.run(time.sleep, 60, timeout=0.5)

    assert not psutil.pid_exists(pid)


async def test_memory_beyond_the_limit_loses_the_worker_and_not_the_machine(worker):
    with pytest.raises(WorkerLost, match="more than its 1500 MB"):
        await worker.run(np.ones, 2 * 2**30 // 8 * 4, timeout=30)


async def test_a_cancelled_task_leaves_no_process(worker):
    pid = await worker.run(os.getpid, timeout=30)
    task = asyncio.create_task(worker.run(time.sleep, 60, timeout=90))
    await asyncio.sleep(0.2)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(pid)


async def test_a_worker_is_replaced_after_its_number_of_tasks():
    worker = Worker(Limits(tasks=2))

    pids = [await worker.run(os.getpid, timeout=30) for _ in range(4)]

    await worker.stop()
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_worker_that_cannot_be_prepared_says_why():
    worker = Worker(Limits(), int, ("three",))

    with pytest.raises(NoWorker, match="invalid literal for int"):
        await worker.run(os.getpid, timeout=30)


def test_an_exit_code_is_put_into_words():
    assert how_it_ended(3) == "died with exit code 3"
    assert how_it_ended(-11) == "killed by SIGSEGV (crash in compiled code)"
    assert how_it_ended(-63) == "killed by signal 63"


PRELOADED = """
import asyncio, os, sys
from qlstream.engine.isolation import Limits
from qlstream.engine.pool import Worker, preload

async def main():
    preload(["qlstream.instrument", "no_such_module"])
    worker = Worker(Limits())
    loaded = await worker.run(eval, "set(__import__('sys').modules)", timeout=60)
    threads = await worker.run(os.getenv, "OPENBLAS_NUM_THREADS", timeout=60)
    await worker.stop()
    assert {"numpy", "numba", "fitsio", "qlstream.instrument"} <= loaded, loaded
    assert threads == "1"

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_find_the_heavy_modules_already_loaded(tmp_path):
    script = tmp_path / "preloaded.py"
    script.write_text(PRELOADED)

    subprocess.run([sys.executable, script], check=True, timeout=120)


ORPHAN = """
import asyncio, os, signal, time
from qlstream.engine.isolation import Limits
from qlstream.engine.pool import Worker

async def main():
    worker = Worker(Limits())
    print(await worker.run(os.getpid, timeout=60), flush=True)
    task = asyncio.create_task(worker.run(time.sleep, 600, timeout=600))
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_busy_worker_ends_when_its_service_was_killed(tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)

    service = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, timeout=120)

    pid = int(service.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert service.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(pid)
