"""Worker processes that may crash, hang or eat memory without harm to anybody else."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from qlstream.engine.isolation import Limits, isolate, set_one_thread

T = TypeVar("T")


START_S = 60.0  # a process that cannot begin in this time never will


class WorkerLost(RuntimeError):
    """The worker died, hung or asked for too much memory; the message says which, for the observer."""


class NoWorker(RuntimeError):
    """A worker cannot start: the fault of its surroundings, not of a task."""


def preload(modules: Iterable[str]) -> None:
    """Import `modules` once in the process that workers are forked from, so that a fresh worker starts in milliseconds.

    To be called before the first worker starts. The fork server passes over a module that it cannot import: the
    worker then imports it by itself, and says what is wrong.
    """
    set_one_thread()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["numpy", "numba", "fitsio", *modules])


class Worker:
    """One worker process, replaced by a fresh one whenever it was lost or has done its number of tasks.

    It is a pebble pool of a single process. One pool for all would share one pipe and its locks: a worker killed while
    it holds them would stall the others, and one that dies idle would break the whole pool.

    Parameters
    ----------
    limits : bounds of the process
    prepare, args : called in each fresh process before its first task
    """

    def __init__(self, limits: Limits, prepare: Callable[..., object] = os.getpid, args: tuple[Any, ...] = ()) -> None:
        self.limits = limits
        self._prepare, self._args = prepare, args
        self._pool: ProcessPool | None = None
        self._tasks = 0

    async def start(self) -> None:
        """Have a process ready; does nothing if there is one.

        Raises
        ------
        NoWorker : it could not be prepared; the message says why
        """
        if self._pool is not None and (not self._pool.active or 0 < self.limits.tasks <= self._tasks):
            await self.stop()  # it died while idle, or has done enough
        if self._pool is None:
            context = multiprocessing.get_context("forkserver")
            self._pool = ProcessPool(1, initializer=isolate, initargs=(self.limits,), context=context)
            self._tasks = 0
            try:
                await self._call(self._prepare, self._args, START_S)
            except Exception as error:
                await self.stop()
                raise NoWorker(f"a worker cannot start: {error or type(error).__name__}") from error

    async def run(self, function: Callable[..., T], *args: Any, timeout: float) -> T:
        """The value of `function(*args)`, computed in the worker; arguments and value should be small.

        An exception of the function is raised here. Cancelling kills the worker.

        Parameters
        ----------
        timeout : kill the worker after this long [second], by the monotonic clock; its start does not count

        Raises
        ------
        WorkerLost : it died, did not end in time, or met its memory limit; the next call gets a fresh one
        NoWorker : there is none, and none can be started
        """
        await self.start()
        self._tasks += 1
        return await self._call(function, args, timeout)

    async def stop(self) -> None:
        """End the process, at once and for sure; harmless if there is none."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(_stop, pool)

    async def _call(self, function: Callable[..., T], args: tuple[Any, ...], timeout: float) -> T:
        assert self._pool is not None
        try:
            future = self._pool.schedule(function, args=args)
        except RuntimeError:  # it died just now, while idle
            await self.stop()
            raise WorkerLost("worker died before it could begin") from None
        try:
            async with asyncio.timeout(timeout) as limit:
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            await asyncio.shield(self.stop())
            raise
        except TimeoutError:
            if not limit.expired():
                raise
            lost = f"hung: killed after {timeout:g} s"
        except ProcessExpired as error:
            lost = how_it_ended(error.exitcode)
        except BrokenProcessPool:
            lost = "died before it could begin"
        except MemoryError:
            lost = f"asked for more than its {self.limits.memory_mb} MB of memory"
        await self.stop()
        raise WorkerLost(f"worker {lost}")


def how_it_ended(exitcode: int | None) -> str:
    """An exit code in words, e.g. "killed by SIGKILL (out of memory?)"."""
    if exitcode is None:
        return "died"
    if exitcode >= 0:
        return f"died with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hints = {"SIGKILL": " (out of memory?)", "SIGSEGV": " (crash in compiled code)", "SIGBUS": " (file cut short?)"}
    return f"killed by {name}{hints.get(name, '')}"


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
