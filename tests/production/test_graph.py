"""Which tasks a night gives, and what they wait for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qlstream.instrument import load_instrument
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.paths import findfile
from qlstream.production.graph import Exposure, Task, build_graph
from qlstream.production.kinds import KINDS

NIGHT = 20260114
CAMERAS = ("b0", "r0", "z0", "b1", "r1", "z1")
ALL = [kind.name for kind in KINDS]


def night(*flavors: str, cameras: tuple[str, ...] = CAMERAS, tile: int = 80600) -> list[Exposure]:
    return [
        Exposure(
            NIGHT, n + 1, flavor, cameras, Path(f"desi-{n + 1:08d}.fits.fz"), tile if flavor == "science" else None
        )
        for n, flavor in enumerate(flavors)
    ]


@pytest.fixture(scope="module")
def graph() -> dict[str, Task]:
    exposures = night("zero", "arc", "arc", "flat", "science", "science")
    return build_graph(exposures, load_instrument("mini"), Path("/redux"), ALL)


def count(graph: dict[str, Task], kind: str) -> int:
    return sum(task.kind == kind for task in graph.values())


def test_each_flavor_asks_for_its_tasks(graph: dict[str, Task]) -> None:
    found = {kind: count(graph, kind) for kind in ALL if kind != "psfboot"}
    assert count(graph, "psfboot") == 0
    assert found == {
        "preproc": 5 * 6, "psf": 2 * 6, "psfnight": 6, "traceshift": 3 * 6, "extract": 3 * 6, "fiberflat": 6,
        "fiberflatnight": 6, "sky": 12, "starfit": 4, "fluxcalib": 12, "cframe": 12, "spectra": 2, "coadd": 2,
        "redshift": 2,
    }  # fmt: skip


def test_a_camera_without_any_psf_starts_from_a_flat_and_an_arc_of_the_night() -> None:
    exposures = night("arc", "arc", "flat", "science", cameras=("r0", "r1"))
    graph = build_graph(exposures, load_instrument("mini"), Path("/redux"), ALL, {("r1", "PSF")})

    boot = graph["psfboot_r1_20260114"]
    assert {(s.port, s.task, s.need) for s in boot.sources} == {
        ("flat", "preproc_r1_00000003", "any"),
        ("arc", "preproc_r1_00000001", "any"),
        ("arc", "preproc_r1_00000002", "any"),
    }
    assert [t.name for t in graph.values() if t.kind == "psfboot"] == [boot.name]
    psf = {s.port: s for s in graph["psf_r1_00000001"].sources}["psf"]
    assert (psf.task, psf.need, psf.calibration, psf.path) == (boot.name, "all", "", boot.output("psf"))
    shift = {s.port: s for s in graph["traceshift_r1_00000004"].sources}["psf"]
    assert (shift.need, shift.calibration) == ("all", ""), "the tree has nothing in its place"
    served = {s.port: s for s in graph["psf_r0_00000001"].sources}["psf"]
    assert (served.task, served.need, served.calibration) == ("", "prefer", ""), "the step takes that of the tree"


def test_without_a_flat_such_a_camera_has_nothing_to_do_yet() -> None:
    graph = build_graph(night("arc", cameras=("r1",)), load_instrument("mini"), Path("/redux"), ALL, {("r1", "PSF")})
    assert {task.kind for task in graph.values()} == {"preproc"}


def test_tasks_wait_for_what_belongs_to_them(graph: dict[str, Task]) -> None:
    def makers(name: str, port: str) -> set[str]:
        return {s.task for s in graph[name].sources if s.port == port}

    assert makers("psfnight_r0_20260114", "psfs") == {"psf_r0_00000002", "psf_r0_00000003"}
    assert makers("extract_r0_00000005", "psf") == {"traceshift_r0_00000005"}
    assert makers("sky_z1_00000006", "fiberflat") == {"fiberflatnight_z1_20260114"}
    assert makers("starfit_p1_00000005", "frames") == {f"extract_{a}1_00000005" for a in "brz"}
    assert makers("spectra_80600_p0_20260114", "frames") == {f"cframe_{a}0_0000000{e}" for a in "brz" for e in (5, 6)}


def test_every_task_stands_behind_what_it_waits_for(graph: dict[str, Task]) -> None:
    seen: set[str] = set()
    for task in graph.values():
        assert all(s.task in seen for s in task.sources if s.task)
        seen.add(task.name)


def test_a_night_without_lamps_takes_its_calibrations_from_the_tree() -> None:
    graph = build_graph(night("science"), load_instrument("mini"), Path("/redux"), ALL)
    shift = graph["traceshift_r0_00000001"]
    assert [(s.task, s.calibration) for s in shift.sources if s.port == "psf"] == [("", "PSF")]
    assert "cframe_r0_00000001" in graph


def test_what_no_step_can_make_is_left_out() -> None:
    steps = [k for k in ALL if k not in ("starfit", "redshift")]
    graph = build_graph(night("arc", "flat", "science"), load_instrument("mini"), Path("/redux"), steps)
    kinds = {task.kind for task in graph.values()}
    assert "sky" in kinds
    assert not kinds & {"fluxcalib", "cframe", "spectra", "coadd"}, "they need standard stars"


def test_an_exposure_without_a_tile_takes_no_part_in_coadds() -> None:
    exposures = [Exposure(NIGHT, 1, "science", CAMERAS, Path("x"), None)]
    graph = build_graph(exposures, load_instrument("mini"), Path("/redux"), ALL)
    assert count(graph, "cframe") == 6
    assert count(graph, "spectra") == 0


def test_spectra_of_a_tile_hold_its_earlier_nights_too(tmp_path: Path) -> None:
    """Two earlier exposures of the tile, one of another tile, and one of a later night."""
    for when, expid, tile in ((NIGHT - 2, 1, 80600), (NIGHT - 1, 2, 80600), (NIGHT - 1, 3, 7), (NIGHT + 1, 9, 80600)):
        for camera in ("r0", "r1"):
            path = Path(findfile("cframe", night=when, expid=expid, camera=camera, specprod_dir=tmp_path))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_fits(path, [HDU("FLUX", np.zeros((1, 2), np.float32), {"TILEID": tile})])
    science = replace(night("science")[0], expid=5)

    graph = build_graph([*night("arc", "flat"), science], load_instrument("mini"), tmp_path, ALL)

    frames = [s for s in graph[f"spectra_80600_p0_{NIGHT}"].sources if s.port == "frames"]
    assert {s.task for s in frames} == {
        *(f"cframe_{arm}0_00000005" for arm in "brz"), "cframe_r0_00000001", "cframe_r0_00000002",
    }  # fmt: skip
    assert {s.path.name.split(".")[0] for s in frames if s.path is not None and s.path.exists()} == {
        "cframe-r0-00000001", "cframe-r0-00000002",
    }  # fmt: skip
    assert not [s for s in graph[f"coadd_80600_p0_{NIGHT}"].sources if s.port == "frames"]
