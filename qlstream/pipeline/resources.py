"""What this process uses."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """Peak resident memory of this process less the file pages it shares [MB].

    Memory-mapped calibration images are the kernel's to drop, so they are not counted where /proc tells them apart.
    """
    try:
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        peak, shared = (int(fields[key].split()[0]) for key in ("VmHWM", "RssFile"))
    except (OSError, KeyError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return max(peak - shared, 0) / 1024
