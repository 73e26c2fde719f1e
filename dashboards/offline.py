"""The offline reduction of a night, as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qlstream.store import tasks as ledger
from qlstream.store.database import Store

_TOLD = 12  # failures that are told one by one


@dataclass(frozen=True)
class Offline:
    """Tasks of a night.

    Attributes
    ----------
    kinds : kind -> state -> how many, in the order of the chain
    failed : (task, why) of the first ones
    running : names of tasks
    """

    kinds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failed: tuple[tuple[str, str], ...] = ()
    running: tuple[str, ...] = ()

    def count(self, *states: str) -> int:
        """How many tasks are in any of these states; without one, how many there are."""
        return sum(n for counts in self.kinds.values() for state, n in counts.items() if not states or state in states)

    @property
    def untold(self) -> int:
        """Failed tasks beyond those in `failed`."""
        return self.count(ledger.FAILED) - len(self.failed)


def read_offline(store: Store, night: int) -> Offline:
    """What the store knows of the tasks of a night; blocks."""
    failed = ledger.of_state(store, ledger.FAILED, night)
    running = ledger.of_state(store, ledger.RUNNING, night)
    return Offline(
        ledger.states(store, night),
        tuple((row["name"], row["reason"]) for row in failed[:_TOLD]),
        tuple(row["name"] for row in running),
    )
