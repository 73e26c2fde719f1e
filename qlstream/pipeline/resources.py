"""What this process uses."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory of this process since `reset`, less the file pages it maps.

    Memory-mapped calibration images are the kernel's to drop, so they do not count where /proc tells them apart. The
    kernel keeps the peak of both together only, so the most file pages seen at a look are taken off: look often.
    """

    def __init__(self) -> None:
        self._mapped_kb = 0

    def reset(self) -> None:
        """Begin anew, so that a camera is not blamed for the one before."""
        self._mapped_kb = 0
        with suppress(OSError):
            _CLEAR_REFS.write_text("5")

    def look(self) -> float:
        """The peak so far [MB]."""
        try:
            fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
            peak_kb, mapped_kb = (int(fields[key].split()[0]) for key in ("VmHWM", "RssFile"))
        except (OSError, KeyError, ValueError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._mapped_kb = max(self._mapped_kb, mapped_kb)
        return max(peak_kb - self._mapped_kb, 0) / 1024


peak_memory = PeakMemory()
