"""Spectra of many targets out of the frames of their exposures (spec offline-reduction §12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.tables import as_table
from algorithms.scores import with_columns
from algorithms.tsnr2.frame import efftime_columns
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.spectra import Band, Spectra, stack_tables

Key = tuple[int, int, str]  # night, expid, camera


def frames2spectra(frames: Mapping[Key, Frame], fibers: NDArray[np.integer[Any]] | None = None) -> Spectra:
    """The calibrated frames of one or more exposures as one set of spectra.

    Rows are sorted by spectrograph, night and exposure, fibers in the order of the frames. A camera that an exposure
    lacks has ivar 0 and the bit NODATA. FIBERSTATUS is the union over the cameras, since each adds bits of its own.

    Parameters
    ----------
    frames : (night, expid, camera) -> frame
    fibers : FIBER numbers to keep; default all

    Raises
    ------
    ValueError : no frames, one without a fibermap, or frames of a band on different grids
    """
    if not frames:
        raise ValueError("frames2spectra: no frames given")
    bare = [str(key) for key, frame in frames.items() if frame.fibermap is None]
    if bare:
        raise ValueError(f"frames2spectra: no fibermap in the frame of {', '.join(bare)}; targets are unknown")
    arms = sorted({camera[0] for _, _, camera in frames}, key=lambda arm: _first_wave(frames, arm))
    blocks = sorted({(int(camera[1:]), night, expid) for night, expid, camera in frames})
    tables = [_fibermap(frames, block, arms) for block in blocks]
    keep = [np.ones(len(t), dtype=bool) if fibers is None else np.isin(t["FIBER"], fibers) for t in tables]
    bands = {arm: _band(frames, arm, blocks, keep) for arm in arms}
    rows = stack_tables([table[k] for table, k in zip(tables, keep, strict=True)])
    scores = [_scores(frames, block, arms, table) for block, table in zip(blocks, tables, strict=True)]
    told = stack_tables([s[k] for s, k in zip(scores, keep, strict=True)])
    return Spectra(bands, rows, scores=told, meta=_common_cards(frames))


def _first_wave(frames: Mapping[Key, Frame], arm: str) -> float:
    return min(float(frame.wave[0]) for (_, _, camera), frame in frames.items() if camera[0] == arm)


def _of_block(frames: Mapping[Key, Frame], block: tuple[int, int, int], arm: str) -> Frame | None:
    spectrograph, night, expid = block
    return frames.get((night, expid, f"{arm}{spectrograph}"))


def _fibermap(frames: Mapping[Key, Frame], block: tuple[int, int, int], arms: list[str]) -> NDArray[Any]:
    """Rows of one exposure and spectrograph, with NIGHT, EXPID, TILEID, EXPTIME and MJD as columns."""
    having = [frame for arm in arms if (frame := _of_block(frames, block, arm)) is not None]
    first = having[0].fibermap
    assert first is not None
    columns = {name: first.column(name) for name in first.rows.dtype.names or ()}
    for frame in having[1:]:
        other = frame.fibermap
        assert other is not None
        if not np.array_equal(other.fiber, first.fiber):
            raise ValueError(f"frames of spectrograph {block[0]}, exposure {block[2]} differ in their fibers")
        if "FIBERSTATUS" in columns:
            columns["FIBERSTATUS"] = columns["FIBERSTATUS"] | other.column("FIBERSTATUS", 0)
    n = len(first)
    if "TARGETID" not in columns:  # only made-up fibermaps lack it
        columns["TARGETID"] = first.fiber.astype(np.int64)
    columns["NIGHT"], columns["EXPID"] = np.full(n, block[1], "i4"), np.full(n, block[2], "i4")
    meta = having[0].meta
    for name, keyword, kind in (("TILEID", "TILEID", "i4"), ("EXPTIME", "EXPTIME", "f4"), ("MJD", "MJD-OBS", "f8")):
        value = meta.get(keyword)
        columns[name] = np.full(n, value if isinstance(value, (int, float)) else 0, kind)
    return as_table(columns)


def _scores(
    frames: Mapping[Key, Frame], block: tuple[int, int, int], arms: list[str], fibermap: NDArray[Any]
) -> NDArray[Any]:
    """The scores of all cameras side by side, and effective times; TARGETID alone where none has any."""
    columns: dict[str, NDArray[Any]] = {"TARGETID": fibermap["TARGETID"]}
    for arm in arms:
        frame = _of_block(frames, block, arm)
        if frame is not None and frame.scores is not None:
            columns |= {name: frame.scores[name] for name in frame.scores.dtype.names or () if name != "TARGETID"}
    cards = {camera[0]: frame.meta for (_, _, camera), frame in frames.items()}
    return with_columns(as_table(columns), efftime_columns(as_table(columns), cards))


def _band(
    frames: Mapping[Key, Frame], arm: str, blocks: list[tuple[int, int, int]], keep: list[NDArray[np.bool_]]
) -> Band:
    having = [frame for (_, _, camera), frame in frames.items() if camera[0] == arm]
    wave = having[0].wave
    for frame in having:
        if frame.wave.shape != wave.shape or not np.allclose(frame.wave, wave, atol=1e-4):
            raise ValueError(f"the frames of arm {arm} stand on different grids; extract them on one")
    ndiag = max(0 if f.resolution is None else f.resolution.shape[1] for f in having)
    shape = (sum(int(k.sum()) for k in keep), len(wave))
    flux, ivar = np.zeros(shape), np.zeros(shape)
    mask = np.full(shape, SpecMask.NODATA, np.uint32)
    resolution = np.zeros((shape[0], ndiag, shape[1]), np.float32) if ndiag else None
    at = 0
    for block, rows in zip(blocks, keep, strict=True):
        here = slice(at, at + int(rows.sum()))
        at = here.stop
        found = _of_block(frames, block, arm)
        if found is None:
            continue
        flux[here], ivar[here], mask[here] = found.flux[rows], found.ivar[rows], found.mask[rows]
        if resolution is not None and found.resolution is not None:
            first = (ndiag - found.resolution.shape[1]) // 2
            resolution[here, first : first + found.resolution.shape[1]] = found.resolution[rows]
    return Band(wave, flux, ivar, mask, resolution)


def _common_cards(frames: Mapping[Key, Frame]) -> dict[str, Any]:
    """Cards that all frames agree on and that tell what they are of."""
    kept = {}
    for keyword in ("TILEID", "SURVEY", "FAPRGRM", "PROGRAM"):
        values = {frame.meta.get(keyword) for frame in frames.values()}
        if len(values) == 1 and None not in values:
            kept[keyword] = values.pop()
    petals = {int(camera[1:]) for _, _, camera in frames}
    if len(petals) == 1:
        kept["PETAL"] = kept["SPECTRO"] = petals.pop()
    nights = {night for night, _, _ in frames}
    kept["NIGHT"] = max(nights)
    return kept
