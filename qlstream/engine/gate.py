"""Holds the service back while its surroundings fail, and tells so from memory: the store may be what fails."""

from __future__ import annotations

import logging

log = logging.getLogger("qlstream.engine")


class Gate:
    """Closed while there is at least one trouble, e.g. "disk" or "store"; open otherwise."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        return not self._troubles

    @property
    def reason(self) -> str:
        """Every trouble in one line; empty while the gate is open."""
        return "; ".join(self._troubles.values())

    def close(self, trouble: str, reason: str) -> bool:
        """Note a trouble; whether it is a new one. Said once, not at every look."""
        new = trouble not in self._troubles
        self._troubles[trouble] = reason
        if new:
            log.error("paused: %s", reason)
        return new

    def open(self, trouble: str) -> bool:
        """Note that a trouble is over; whether it was there."""
        was = self._troubles.pop(trouble, None)
        if was is None:
            return False
        if self._troubles:
            log.info("over: %s; still paused: %s", was, self.reason)
        else:
            log.info("resumed; it was paused because of: %s", was)
        return True
