"""The tasks of a night and what each waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qlstream.instrument import Instrument
from qlstream.io.listing import files_by_camera
from qlstream.io.paths import findfile
from qlstream.io.tilespectra import list_tile_exposures
from qlstream.production.kinds import KINDS, Kind, Need, Upstream

_KIND = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Exposure:
    """What the graph must know of a raw exposure.

    Attributes
    ----------
    flavor : zero, dark, arc, flat or science
    cameras : in the file
    tileid : of a science exposure; without one, it takes no part in coadds
    fibermap : its file, or None
    """

    night: int
    expid: int
    flavor: str
    cameras: tuple[str, ...]
    raw: Path
    tileid: int | None = None
    fibermap: Path | None = None


@dataclass(frozen=True)
class Source:
    """One file that a task takes.

    Attributes
    ----------
    port : of its step
    path : the file
    task : the task that makes it; "" for a file that is there already
    need : what the task waits for (see `kinds.Need`)
    calibration : kind of calibration that serves if no such task succeeds
    """

    port: str
    path: Path | None = None
    task: str = ""
    need: Need = "all"
    calibration: str = ""


@dataclass(frozen=True)
class Task:
    """One piece of offline work.

    Attributes
    ----------
    name : kind and fields, e.g. sky_r3_00000012
    kind : one of `kinds.KINDS`
    night, expid, camera, petal, tile : what it is about; None or "" where it has no such field
    sources : its inputs
    outputs : (port, file)
    """

    name: str
    kind: str
    night: int
    expid: int | None = None
    camera: str = ""
    petal: int | None = None
    tile: int | None = None
    sources: tuple[Source, ...] = ()
    outputs: tuple[tuple[str, Path], ...] = ()

    @property
    def arm(self) -> str:
        return self.camera[:1]

    @property
    def waits_for(self) -> tuple[tuple[str, str, Need], ...]:
        """Port, task and need of each input that a task makes."""
        return tuple((s.port, s.task, s.need) for s in self.sources if s.task)

    def output(self, port: str) -> Path:
        """The file of one output."""
        return dict(self.outputs)[port]


@dataclass
class _Draft:
    """A task before its sources are known."""

    kind: Kind
    fields: dict[str, int | str | None]
    flavor: str = ""
    given: dict[str, Path | None] = field(default_factory=dict)  # port -> file that no task makes
    known: dict[str, int | str | None] = field(default_factory=dict)  # fields, and what follows from them

    @property
    def name(self) -> str:
        given = self.fields
        parts = [self.kind.name]
        parts += [f"{given['tile']}"] if given.get("tile") is not None else []
        parts += [str(given["camera"])] if given.get("camera") else []
        parts += [f"p{given['petal']}"] if given.get("petal") is not None else []
        parts += [f"{given['expid']:08d}" if given.get("expid") is not None else f"{given['night']}"]
        return "_".join(parts)


def build_graph(
    exposures: Iterable[Exposure],
    instrument: Instrument,
    redux: Path,
    steps: Iterable[str],
    lacking: Collection[tuple[str, str]] = (),
) -> dict[str, Task]:
    """All tasks of the exposures, by name, in an order in which each stands behind what it waits for.

    Parameters
    ----------
    redux : production folder; what it has of the same tiles from earlier nights goes into their spectra
    steps : kinds that the plan has; tasks of others are left out, and so is what could only come from them
    lacking : cameras and kinds of calibration that nothing but tonight's tasks can give them
    """
    wanted = set(steps)
    made = {kind.without for kind in KINDS if kind.name in wanted}
    lacking = {(camera, calibration) for camera, calibration in lacking if calibration in made}
    drafts: dict[str, _Draft] = {}
    makers: dict[str, list[_Draft]] = defaultdict(list)
    listed = sorted(exposures, key=lambda e: e.expid)
    for kind in KINDS:
        if kind.name not in wanted:
            continue
        for exposure in listed:
            if exposure.flavor not in kind.flavors or ("tile" in kind.per and exposure.tileid is None):
                continue
            for camera in exposure.cameras:
                if kind.without and (camera, kind.without) not in lacking:
                    continue
                draft = _draft(kind, exposure, camera, instrument)
                if draft.name not in drafts:
                    drafts[draft.name] = draft
                    makers[kind.name].append(draft)
    earlier = _Earlier(redux, instrument)
    tasks = {name: _task(draft, makers, redux, earlier, lacking) for name, draft in drafts.items()}
    return _possible(tasks)


class _Earlier:
    """What the production has of tiles from nights before; each tile is looked for once."""

    def __init__(self, redux: Path, instrument: Instrument) -> None:
        self._redux, self._instrument = redux, instrument
        self._exposures: dict[tuple[int, int], list[tuple[int, int, int]]] = {}

    def sources(self, up: Upstream, draft: _Draft) -> list[Source]:
        """The files of one petal of the draft's tile, with the names of the tasks that made them."""
        given, filetype = draft.fields, dict(_KIND[up.kind].outputs)[up.output]
        tile, night, petal = (_integer(given.get(name)) for name in ("tile", "night", "petal"))
        if tile is None or night is None or petal is None:
            return []
        if (tile, night) not in self._exposures:
            self._exposures[tile, night] = list_tile_exposures(tile, night - 1, self._redux)
        found = []
        for _, before, expid in self._exposures[tile, night]:
            for camera, path in files_by_camera(filetype, before, expid, self._redux).items():
                if self._instrument.spectrograph(camera) == petal:
                    maker = _Draft(_KIND[up.kind], {"night": before, "expid": expid, "camera": camera})
                    found.append(Source(up.port, path, maker.name, up.need))
        return found


def _draft(kind: Kind, exposure: Exposure, camera: str, instrument: Instrument) -> _Draft:
    known: dict[str, int | str | None] = {
        "night": exposure.night,
        "expid": exposure.expid,
        "camera": camera,
        "petal": instrument.spectrograph(camera),
        "tile": exposure.tileid,
    }
    fields = {name: known[name] for name in kind.per}
    follows = dict(fields)
    if "camera" in fields:
        follows["petal"] = known["petal"]
    if "expid" in fields and exposure.flavor == "science":
        follows["tile"] = known["tile"]
    given = {"raw": exposure.raw if kind.raw else None, "fibermap": exposure.fibermap if kind.fibermap else None}
    return _Draft(kind, fields, exposure.flavor, given, follows)


def _task(
    draft: _Draft,
    makers: Mapping[str, list[_Draft]],
    redux: Path,
    earlier: _Earlier,
    lacking: Collection[tuple[str, str]],
) -> Task:
    kind, given = draft.kind, draft.fields
    sources = [Source(port, path) for port, path in draft.given.items() if path is not None]
    for up in kind.upstream:
        sources += earlier.sources(up, draft) if up.earlier else []
        found = [m for m in makers.get(up.kind, []) if up.flavor in ("", m.flavor) and _match(draft, m)]
        need, calibration = up.need, up.calibration
        replaced = calibration or _KIND[up.kind].without
        if (given.get("camera"), replaced) in lacking:  # nothing serves in place of tonight's
            need, calibration = "all", ""
        for maker in found:
            path = _path(dict(maker.kind.outputs)[up.output], maker.fields, redux)
            sources.append(Source(up.port, path, maker.name, need, calibration))
        if not found:
            sources.append(Source(up.port, need=need, calibration=calibration))
    return Task(
        name=draft.name,
        kind=kind.name,
        night=int(given["night"] or 0),
        expid=_integer(given.get("expid")),
        camera=str(given.get("camera") or ""),
        petal=_integer(given.get("petal")),
        tile=_integer(given.get("tile")),
        sources=tuple(sources),
        outputs=tuple((port, _path(filetype, given, redux)) for port, filetype in kind.outputs),
    )


def _match(draft: _Draft, maker: _Draft) -> bool:
    """Whether all that is known of both agrees."""
    return all(draft.known[name] == maker.known[name] for name in draft.known.keys() & maker.known.keys())


def _possible(tasks: dict[str, Task]) -> dict[str, Task]:
    """Leave out tasks that wait for something that no task makes and no calibration replaces."""
    kept: dict[str, Task] = {}
    for name, task in tasks.items():
        # tasks that are not of this graph have made their files already
        sources = tuple(s for s in task.sources if not s.task or s.task in kept or s.task not in tasks)
        ports = {s.port: s for s in task.sources}
        given = {s.port for s in sources if s.path is not None}
        missing = [port for port, s in ports.items() if s.need != "prefer" and port not in given]
        if not missing:
            kept[name] = Task(**{**task.__dict__, "sources": sources})
    return kept


def _path(filetype: str, given: Mapping[str, int | str | None], redux: Path) -> Path:
    tile = given.get("tile")
    return Path(
        findfile(
            filetype,
            night=given.get("night"),
            expid=given.get("expid"),
            camera=str(given["camera"]) if given.get("camera") else None,
            spectrograph=given.get("petal"),
            tile=tile,
            specprod_dir=str(redux),
        )
    )


def _integer(value: int | str | None) -> int | None:
    return None if value is None else int(value)
