"""Signs of life while a camera is being reduced: what runs, and for how long already."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self


class Heartbeat:
    """Logs every `period_s` what is running, and warns once when it takes longer than `slow_s`.

    It only tells; a camera that hangs is stopped by the time-out of the service. It beats beside the work in a thread
    of its own, and by the monotonic clock, which no correction of the time can move (spec quicklook-pipeline §7).

    Parameters
    ----------
    log : of the camera
    period_s, slow_s : > 0 [second]
    """

    def __init__(
        self, log: logging.Logger | logging.LoggerAdapter[Any], period_s: float = 5.0, slow_s: float = 120.0
    ) -> None:
        self._log = log
        self._period_s, self._slow_s = period_s, slow_s
        self._running: tuple[str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def begin(self, what: str) -> None:
        """From now on `what` is running: a stage or a metric."""
        self._running = what, time.monotonic()

    def _beat(self) -> None:
        running, beats, warned = self._running, 0, False
        wait = min(self._period_s, self._slow_s)
        while not self._ended.wait(wait):
            if self._running is not running:
                running, beats, warned = self._running, 0, False
            if running is None:
                continue
            what, since = running
            elapsed = time.monotonic() - since
            extra = {"stage": what, "elapsed_s": round(elapsed, 3)}
            if elapsed >= self._slow_s and not warned:
                warned = True
                self._log.warning("still running after %.3g s; %g s are usual", elapsed, self._slow_s, extra=extra)
            elif elapsed >= self._period_s * (beats + 1):
                self._log.info("running for %.3g s", elapsed, extra=extra)
            beats = int(elapsed / self._period_s)
            due = self._period_s * (beats + 1)
            wait = (due if warned else min(due, self._slow_s)) - elapsed
