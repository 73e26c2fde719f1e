"""The progress of a night on the terminal, as the store tells it: whoever works on the night, the bar is right."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from qlstream.store import tasks as ledger
from qlstream.store.database import Store, StoreAway

_LOOK_S = 0.5  # between looks into the store, on a terminal
_SELDOM_S = 30.0  # between lines, where standard error is a file


class NightBar:
    """A bar with what runs, what failed and what is blocked; in a file a line every half minute."""

    def __init__(self, store: Store, night: int) -> None:
        self._store, self._night = store, night
        self._console = Console(file=sys.stderr)
        self._progress = Progress(
            TextColumn(f"{night}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[red]{task.fields[bad]}"),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self._console,
            expand=True,
        )
        self._task = self._progress.add_task("looking what is there", total=None, bad="")

    def __enter__(self) -> NightBar:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._console.is_terminal:
            with suppress(StoreAway):
                self._look()
            self._progress.stop()

    def print(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def told(self, name: str, state: str, reason: str) -> None:
        """Hears of every change of a task of this process; says at once what failed."""
        if state == ledger.FAILED:
            self.print(f"{name} failed: {reason}")

    async def follow(self) -> None:
        """Keep the bar up to date until cancelled."""
        while True:
            with suppress(StoreAway):
                line = await asyncio.to_thread(self._look)
                if not self._console.is_terminal:
                    self.print(line)
            await asyncio.sleep(_LOOK_S if self._console.is_terminal else _SELDOM_S)

    def _look(self) -> str:
        counts = list(ledger.states(self._store, self._night).values())
        total = sum(sum(count.values()) for count in counts)
        failed, blocked = (sum(count[s] for count in counts) for s in (ledger.FAILED, ledger.BLOCKED))
        ended = total - sum(count[state] for count in counts for state in ledger.OPEN)
        bad = ", ".join(f"{n} {what}" for n, what in ((failed, "failed"), (blocked, "blocked")) if n)
        running = ", ".join(row["name"] for row in ledger.of_state(self._store, ledger.RUNNING, self._night))
        self._progress.update(self._task, total=total, completed=ended, bad=bad, description=running)
        return ", ".join(filter(None, (f"{self._night}: {ended} of {total} tasks", bad, running and f"at {running}")))
