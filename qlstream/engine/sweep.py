"""Clears away what processes left that were killed while they wrote."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

import psutil

from qlstream.engine.preview import sweep_previews
from qlstream.store.database import Store
from qlstream.store.vectors import sweep_vectors

log = logging.getLogger("qlstream.engine")

_TEMPORARY = re.compile(r"_tmp(\d+)(\.|$)")  # as io.atomic names them
YOUNG_S = 600.0  # a file that was touched since may be written by another host


def sweep(store: Store) -> int:
    """Remove temporary files of dead processes, and previews and vectors without a row; returns how many.

    A product of a DESI path needs no sweep: the next attempt at its camera writes over it.
    """
    count = sweep_temporary(store.redux) + sweep_vectors(store) + sweep_previews(store)
    if count:
        log.info("removed %d files that killed processes had left", count)
    return count


def sweep_temporary(folder: Path, older_than_s: float = YOUNG_S) -> int:
    """Remove the temporary files of processes that no longer live, unless they are young; returns how many."""
    before = time.time() - older_than_s
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            match = _TEMPORARY.search(name)
            if match is None or psutil.pid_exists(int(match[1])):
                continue
            path = Path(parent, name)
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
    return count
