"""Arrays of metrics in files beside the store; the rows hold their paths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from qlstream.io.atomic import atomic_path
from qlstream.pipeline.result import QAResult
from qlstream.store.database import Store
from qlstream.store.jobs import Job
from qlstream.store.schema import qa

_FOLDER = Path("qlstream", "vectors")


def write_vectors(redux: Path, job: Job, result: QAResult) -> str | None:
    """Write the arrays of a result; returns the file's path relative to `redux`, None if there are none.

    The name holds version and attempt, so that no attempt writes over what another one's row points to.
    """
    arrays = {f"{group}/{key}": value for group, key, value in _grouped(result)}
    if not arrays:
        return None
    folder = _FOLDER / str(job.night) / f"{job.expid:08d}" / job.camera
    relative = folder / f"{result.name}-v{job.version}-a{job.attempt}.npz"
    path = redux / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the keyword allow_pickle for an array
    return str(relative)


def read_vectors(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of a result: {"per_fiber": {key: array}, "vectors": {key: array}}."""
    groups: dict[str, dict[str, NDArray[Any]]] = {"per_fiber": {}, "vectors": {}}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            group, _, key = name.partition("/")
            groups[group][key] = file[name]
    return groups


def sweep_vectors(store: Store, older_than_s: float = 3600.0) -> int:
    """Remove files that no row points to: left by attempts that were killed or replaced; returns how many.

    Younger files are left alone, since their row may be about to come.
    """
    root = store.redux / _FOLDER
    before = time.time() - older_than_s
    found = [path for path in root.glob("*/*/*/*") if path.is_file() and path.stat().st_mtime < before]
    with store.read() as conn:
        wanted = set(conn.execute(select(qa.c.vectors).where(qa.c.vectors.is_not(None))).scalars())
    orphans = [path for path in found if str(path.relative_to(store.redux)) not in wanted]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _grouped(result: QAResult) -> list[tuple[str, str, NDArray[Any]]]:
    groups: tuple[tuple[str, Mapping[str, NDArray[Any]]], ...] = (
        ("per_fiber", result.per_fiber),
        ("vectors", result.vectors),
    )
    return [(name, key, np.asarray(value)) for name, arrays in groups for key, value in arrays.items()]
