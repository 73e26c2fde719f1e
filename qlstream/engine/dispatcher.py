"""Hands out the ready jobs of the store, one claim at a time, while the gate is open."""

from __future__ import annotations

import asyncio

from qlstream.engine.gate import Gate
from qlstream.store.database import Store, StoreAway
from qlstream.store.jobs import Job, Policy, claim_next

POLL_S = 0.1  # without a hint a ready job waits half of this
AWAY_S = 1.0  # between looks at a store that is away


class Dispatcher:
    """Waiting work lives in the store, not here: a claim always takes what is first at that moment.

    Parameters
    ----------
    policy : what is first
    gate : nothing is claimed while it is closed
    """

    def __init__(self, store: Store, source: str, policy: Policy, gate: Gate) -> None:
        self._store = store
        self._source = source
        self._policy = policy
        self._gate = gate
        self._one_claim = asyncio.Lock()
        self._hint = asyncio.Event()
        self._closed = False

    def hint(self) -> None:
        """Tell that there may be work: only saves the wait for the next poll."""
        self._hint.set()

    def close(self) -> None:
        """Claim nothing more: everybody who waits in `next` gets None."""
        self._closed = True
        self._hint.set()

    async def next(self) -> Job | None:
        """Wait for a job and claim it; None once closed."""
        async with self._one_claim:
            while not self._closed:
                self._hint.clear()  # before looking: a hint that comes meanwhile ends the pause below
                job = await self._claim() if self._gate.is_open else None
                if job is not None:
                    return job
                await self._pause(POLL_S if self._gate.is_open else AWAY_S)
        return None

    async def _claim(self) -> Job | None:
        try:
            return await asyncio.to_thread(claim_next, self._store, self._source, self._policy)
        except StoreAway as away:
            self._gate.close("store", str(away))
            return None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            pass
