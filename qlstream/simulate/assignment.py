"""The files that survey tools leave beside a raw exposure: fiberassign-TILEID.fits.gz and coordinates-EXPID.fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.masks import FiberMask
from qlstream.instrument import Instrument
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.seeds import generator
from qlstream.simulate.targets import Targets, tile_cards

# Filled in after the tile was designed: by the platemaker, and by the exposure
_MEASURED = ("NUM_ITER", "FIBER_X", "FIBER_Y", "DELTA_X", "DELTA_Y", "FIBER_RA", "FIBER_DEC", "EXPTIME")
_DESIGN_BITS = int(FiberMask.UNASSIGNED | FiberMask.STUCKPOSITIONER | FiberMask.BROKENFIBER | FiberMask.RESTRICTED)
_SKY_MONITORS = 2  # per petal; fibers that lead to no spectrograph
_BLIND_MOVE = 0.05  # scatter of the positioners before they are corrected [mm]
_Table = NDArray[np.void]


def write_companions(folder: Path, targets: Targets, instrument: Instrument, exposure: Exposure, seed: int) -> None:
    """Both files of a science exposure; their rows are in the order of the positioners, not of the fibers."""
    rows = targets.rows[np.isin(targets.rows["PETAL_LOC"], instrument.spectrographs) & (targets.rows["TARGETID"] != 0)]
    rows = rows[np.argsort(rows["LOCATION"], kind="stable")]
    cards = tile_cards(exposure)
    assigned = folder / f"fiberassign-{exposure.tileid:06d}.fits.gz"
    write_fits(
        assigned,
        [
            HDU("", None, cards),
            HDU("FIBERASSIGN", _design(rows), cards),
            HDU("SKY_MONITOR", _sky_monitors(instrument)),
            HDU("TARGETS", rows[rows["TARGETID"] > 0][["TARGETID", "TARGET_RA", "TARGET_DEC", "DESI_TARGET"]]),
        ],
    )
    positions = folder / f"coordinates-{exposure.expid:08d}.fits"
    names = {"EXPID": exposure.expid, "NIGHT": exposure.night}
    write_fits(positions, [HDU("COORDS", None, {**cards, **names}), HDU("DATA", _coordinates(rows, exposure, seed))])


def _design(rows: _Table) -> _Table:
    """What is known before anything is observed."""
    columns = [name for name in rows.dtype.names or () if name not in _MEASURED]
    design = np.zeros(len(rows), dtype=[(name, rows.dtype[name]) for name in columns])
    for name in columns:
        design[name] = rows[name]
    design["FIBERSTATUS"] &= _DESIGN_BITS
    return design


def _sky_monitors(instrument: Instrument) -> _Table:
    table = np.zeros(
        _SKY_MONITORS * len(instrument.spectrographs),
        dtype=[("FIBER", "i4"), ("LOCATION", "i4"), ("PETAL_LOC", "i2"), ("DEVICE_LOC", "i4")],
    )
    table["FIBER"] = -1
    table["PETAL_LOC"] = np.repeat(instrument.spectrographs, _SKY_MONITORS)
    table["DEVICE_LOC"] = 541 + np.arange(len(table)) % _SKY_MONITORS
    table["LOCATION"] = 1000 * table["PETAL_LOC"] + table["DEVICE_LOC"]
    return table


def _coordinates(rows: _Table, exposure: Exposure, seed: int) -> _Table:
    """Places after a blind and after a correction move, and the final ones."""
    final = [
        "FIBER_X", "FIBER_Y", "FIBER_DX", "FIBER_DY", "FIBER_OFFSET", "FIBER_RA", "FIBER_DEC", "TARGET_RA",
        "TARGET_DEC",
    ]  # fmt: skip
    moves = [f"{name}_{n}" for n in (0, 1) for name in ("FPA_X", "FPA_Y", "DX", "DY")]
    table = np.zeros(
        len(rows), dtype=[("PETAL_LOC", "i8"), ("DEVICE_LOC", "i8"), *((name, "f8") for name in (*final, *moves))]
    )
    for name in ("PETAL_LOC", "DEVICE_LOC", "FIBER_X", "FIBER_Y", "FIBER_RA", "FIBER_DEC", "TARGET_RA", "TARGET_DEC"):
        table[name] = rows[name]
    table["FIBER_DX"], table["FIBER_DY"] = rows["DELTA_X"], rows["DELTA_Y"]
    table["FIBER_OFFSET"] = np.hypot(rows["DELTA_X"], rows["DELTA_Y"])
    rng = generator(seed, exposure.night, exposure.expid, "blind move")
    for axis in "XY":
        table[f"FPA_{axis}_1"], table[f"D{axis}_1"] = rows[f"FIBER_{axis}"], rows[f"DELTA_{axis}"]
        blind = rng.normal(0.0, _BLIND_MOVE, len(rows))
        table[f"FPA_{axis}_0"] = rows[f"FIBER_{axis}"] + rows[f"DELTA_{axis}"] - blind
        table[f"D{axis}_0"] = blind
    return table
