"""A whole night on disk: raw exposures, the calibration tree that serves them, and the truth beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qlstream.instrument import Instrument
from qlstream.io.atomic import atomic_path
from qlstream.io.fibermap import write_fibermap
from qlstream.io.paths import findfile
from qlstream.io.raw import write_raw
from qlstream.simulate.assignment import write_companions
from qlstream.simulate.calibration import write_calibration, write_spectrograph_map
from qlstream.simulate.damage import damage
from qlstream.simulate.exposure import build_camera, simulate_camera
from qlstream.simulate.faults import Fault, as_observed
from qlstream.simulate.headers import exposure_header
from qlstream.simulate.schedule import DEFAULT_NIGHT, Exposure, plan_night
from qlstream.simulate.startemplates import write_star_grid
from qlstream.simulate.targets import assign_targets, fibermap_of
from qlstream.simulate.truth import write_truth

Report = Callable[[str], None]


def simulate_night(
    instrument: Instrument,
    night: int,
    out: Path,
    cameras: Sequence[str] | None = None,
    seed: int = 1,
    faults: Sequence[Fault] = (),
    kinds: Sequence[str] = DEFAULT_NIGHT,
    with_fluxcalib: bool = True,
    with_noiseless: bool = False,
    report: Report = lambda what: None,
    fiberassign: bool = False,
) -> tuple[Path, ...]:
    """Simulate a night and write OUT/raw, OUT/calib and OUT/truth.

    A camera's image depends on the seed, the night, the exposure number and its own name only, so a night simulated
    again with other cameras, or longer, has the same pixels.

    Parameters
    ----------
    cameras : of `instrument`; those of its first spectrograph if not given
    faults : what to break
    kinds : the exposures, in order, each one of `schedule.KINDS`
    with_fluxcalib : put an average flux calibration in the tree
    with_noiseless : put the noiseless images in the truth files
    fiberassign : science comes with its fiberassign and coordinates files, as from a telescope, instead of a
        fibermap made of them; calibrations come without either
    report : called with what is being made, once per step; `count_steps` tells how often

    Returns
    -------
    the raw files, in order

    Raises
    ------
    KeyError : the instrument has no such camera
    ValueError : an unknown kind of exposure, a night that is no date, or a fault that would break nothing
    """
    chosen = tuple(cameras or instrument.cameras[: len(instrument.arms)])
    plan = plan_night(night, seed, kinds)
    idle = [str(f) for f in faults if not any(f.hits(e, camera) for e in plan for camera in chosen)]
    if idle:
        raise ValueError(
            f"no camera or exposure of this night for the fault {', '.join(idle)}; it has {', '.join(chosen)} and "
            + ", ".join(f"{e.expid} {e.kind}" for e in plan)
        )
    write_spectrograph_map(out / "calib")
    write_star_grid(out / "calib")
    for camera in chosen:
        report(f"calibration of {camera}")
        write_calibration(out / "calib", build_camera(instrument, camera, seed), with_fluxcalib)
    paths = []
    for exposure in plan:
        hitting = [fault for fault in faults if fault.hits(exposure)]
        paths.append(
            _write_exposure(instrument, exposure, out, chosen, seed, hitting, with_noiseless, report, fiberassign)
        )
    return tuple(paths)


def count_steps(cameras: Sequence[str], kinds: Sequence[str]) -> int:
    """How often `simulate_night` reports."""
    return len(cameras) * (1 + len(kinds))


def _write_exposure(
    instrument: Instrument,
    exposure: Exposure,
    out: Path,
    cameras: Sequence[str],
    seed: int,
    faults: Sequence[Fault],
    with_noiseless: bool,
    report: Report,
    fiberassign: bool,
) -> Path:
    night, expid = exposure.night, exposure.expid
    kinds = {fault.kind for fault in faults}
    observed = as_observed(exposure, faults)
    primary = exposure_header(observed, instrument, cameras)
    targets = assign_targets(instrument, observed, seed, faults)
    images: dict[str, tuple[Any, dict[str, Any]]] = {}
    for camera in cameras:
        report(f"{exposure.kind} exposure {expid}, {camera}")
        simulated = simulate_camera(instrument, camera, exposure, seed, faults, targets, cameras)
        truth = out / "truth" / str(night) / f"{expid:08d}" / f"truth-{camera}-{expid:08d}.fits"
        truth.parent.mkdir(parents=True, exist_ok=True)
        identity = {
            key: simulated.raw.header[key] for key in ("CAMERA", "NIGHT", "EXPID", "OBSTYPE", "PROGRAM", "EXPTIME")
        }
        write_truth(truth, simulated.truth, identity, with_noiseless)
        if not any(fault.kind == "missing-camera" and fault.hits(exposure, camera) for fault in faults):
            images[camera] = (simulated.raw.pix, simulated.cards)
    path = Path(findfile("raw", night, expid, rawdata_dir=out / "raw"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if exposure.flavor not in ("zero", "dark") and "missing-fibermap" not in kinds:  # first, so that none has to wait
        if not fiberassign:
            fibermap = fibermap_of(targets, instrument, observed, primary)
            write_fibermap(path.parent / f"fibermap-{expid:08d}.fits", fibermap)
        elif exposure.flavor == "science":
            write_companions(path.parent, targets, instrument, observed, seed)
    with atomic_path(path) as temporary:
        write_raw(temporary, primary, images)
        damage(temporary, faults, tuple(images))
    return path
