"""The raw exposures of a night, and their tasks in the store."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from qlstream.calibration.finder import find_calibration
from qlstream.calibration.tree import CalibrationTreeError
from qlstream.ingest.completeness import read_facts
from qlstream.ingest.fibermaps import obtain_fibermap
from qlstream.ingest.names import Place
from qlstream.io.compression import existing_file
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile
from qlstream.io.listing import list_exposures
from qlstream.io.raw import read_exposure_header
from qlstream.production.execute import is_whole
from qlstream.production.graph import Exposure, Task
from qlstream.production.kinds import KINDS
from qlstream.store import tasks as ledger
from qlstream.store.database import Store
from qlstream.store.tasks import NewTask

SOURCE = "production"

_ORDER = {kind.name: n for n, kind in enumerate(KINDS)}


def raw_exposures(raw: Path, redux: Path, night: int, instrument: str = "auto") -> tuple[list[Exposure], list[str]]:
    """The exposures of a night on disk; and what is wrong with others, or with cameras of theirs.

    Raises
    ------
    NotADirectoryError : there is no such folder
    """
    if not raw.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no folder of raw exposures; check --raw", str(raw))
    found, faults = [], []
    for expid in list_exposures(night, raw=True, rawdata_dir=raw):
        place = Place(night, expid)
        path = place.find(raw)
        if path is None:
            continue
        try:
            facts, _ = read_facts(path, place, instrument)
            fibermap = obtain_fibermap(path, raw, redux, place, instrument, hurry=True).path
        except (BadFile, OSError, ValueError) as error:
            faults.append(f"exposure {expid} cannot be used: {error}")
            continue
        if facts.missing:
            faults.append(f"exposure {expid}: no {', '.join(facts.missing)} in {path}, though its header promises so")
        found.append(Exposure(night, expid, facts.flavor, facts.cameras, path, facts.tileid, fibermap))
    return found, faults


def lacking_calibrations(
    exposures: Iterable[Exposure], calib: Path | None, allow_expired: bool
) -> frozenset[tuple[str, str]]:
    """Cameras and kinds of calibration that the tree does not have, of those that tasks can make up for."""
    kinds = {kind.without for kind in KINDS if kind.without}
    example = {camera: exposure.raw for exposure in exposures for camera in exposure.cameras}
    lacking = set()
    for path in set(example.values()):
        for camera, header in _headers(path, [c for c in example if example[c] == path]):
            with suppress(BadFile, CalibrationTreeError, OSError):  # the camera's first task meets the same, and tells
                found = find_calibration(header, calib, tonight=False, allow_expired=allow_expired)
                lacking |= {(camera, kind) for kind in kinds if kind not in found}
    return frozenset(lacking)


def _headers(path: Path, cameras: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each camera with its header, of those that can be read; the file is opened once for all of them."""
    with suppress(BadFile, OSError):  # as above
        exposure = read_exposure_header(path)
        with FitsFile(path) as fits:
            for camera in cameras:
                if camera.upper() in fits:
                    yield camera, {**exposure, **fits.header(camera.upper()), "CAMERA": camera}


def enter(store: Store, graph: dict[str, Task], redo: Iterable[str] = ()) -> None:
    """Put the tasks of a graph into the store; what is whole and up to date is done, unless to be redone."""
    again = set(redo)
    looked_utc = time.time()
    new = [
        NewTask(
            task.name,
            task.kind,
            _ORDER[task.kind],
            task.night,
            task.expid,
            task.camera,
            task.waits_for,
            done=task.kind not in again and _is_up_to_date(task),
        )
        for task in graph.values()
    ]
    ledger.put(store, SOURCE, new, looked_utc)


def _is_up_to_date(task: Task) -> bool:
    """Whether all outputs are whole and none is older than an input; those of the calibration tree do not count."""
    if not all(is_whole(path) for _, path in task.outputs):
        return False
    made = min(existing_file(path).stat().st_mtime_ns for _, path in task.outputs)
    inputs = [s.path for s in task.sources if s.path is not None and is_whole(s.path)]
    return all(existing_file(path).stat().st_mtime_ns <= made for path in inputs)
