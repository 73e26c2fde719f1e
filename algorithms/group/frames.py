"""Spectra of many targets out of the frames of their exposures (spec offline-reduction §12)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.tables import as_table
from algorithms.scores import with_columns
from algorithms.tsnr2.frame import efftime_columns
from algorithms.tsnr2.tracers import TIMED
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.spectra import Band, Spectra, stack_tables

Key = tuple[int, int, str]  # night, expid, camera
Block = tuple[int, int, int]  # spectrograph, night, expid

_CARDS = ("TILEID", "SURVEY", "FAPRGRM", "PROGRAM")  # what spectra are of, if all frames agree


@dataclass(frozen=True)
class _Told:
    """What a frame has beside its spectra."""

    fibermap: Fibermap
    scores: NDArray[Any] | None
    meta: dict[str, Any]


def frames2spectra(frames: Mapping[Key, Frame]) -> Spectra:
    """The calibrated frames of one or more exposures as one set of spectra.

    Rows are sorted by spectrograph, night and exposure, fibers in the order of the frames. A camera that an exposure
    lacks has ivar 0 and the bit NODATA. FIBERSTATUS is the union over the cameras, since each adds bits of its own.

    Parameters
    ----------
    frames : (night, expid, camera) -> frame; each is asked for once, so that it may be read then

    Raises
    ------
    ValueError : no frames, one without a fibermap, or frames of a band on different grids
    """
    if not frames:
        raise ValueError("frames2spectra: no frames given")
    told: dict[Block, dict[str, _Told]] = defaultdict(dict)
    spectra: dict[str, dict[Block, Band]] = defaultdict(dict)
    for (night, expid, camera), frame in frames.items():
        if frame.fibermap is None:
            raise ValueError(f"frames2spectra: no fibermap in the frame of {camera}, exposure {expid}: no targets")
        block = (int(camera[1:]), night, expid)
        told[block][camera[0]] = _Told(frame.fibermap, frame.scores, frame.meta)
        exact = None if frame.resolution is None else frame.resolution.astype(np.float32)  # as exact as in files
        spectra[camera[0]][block] = Band(frame.wave, frame.flux, frame.ivar, frame.mask, exact)
    arms = sorted(spectra, key=lambda arm: next(iter(spectra[arm].values())).wave[0])
    blocks = sorted(told)
    in_order = {block: {arm: told[block][arm] for arm in arms if arm in told[block]} for block in blocks}
    tables = [_fibermap(block, in_order[block]) for block in blocks]
    cards = {arm: of.meta for found in in_order.values() for arm, of in found.items()}
    scores = [_scores(table, in_order[block], cards) for block, table in zip(blocks, tables, strict=True)]
    numbers = [len(table) for table in tables]
    # what has been joined is let go, so that it is in memory once
    bands = {arm: _joined(arm, spectra.pop(arm), blocks, numbers) for arm in arms}
    meta = _common_cards(in_order) | _nominal_cards(cards)
    return Spectra(bands, stack_tables(tables), scores=stack_tables(scores), meta=meta)


def with_all_arms(spectra: Spectra) -> Spectra:
    """Spectra to which an arm was added, with effective times against what all arms tell in nominal conditions."""
    if spectra.scores is None:
        return spectra
    cards = {
        arm: {f"NOM{name}": spectra.meta[key] for name in TIMED if (key := f"NOM{name}_{arm.upper()}") in spectra.meta}
        for arm in spectra.bands
    }
    return replace(spectra, scores=with_columns(spectra.scores, efftime_columns(spectra.scores, cards)))


def _nominal_cards(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """NOM<tracer>_<ARM>: what TSNR2 an arm has in nominal conditions, from NOM<tracer> of its frames."""
    return {
        f"NOM{name}_{arm.upper()}": header[f"NOM{name}"]
        for arm, header in cards.items()
        for name in TIMED
        if f"NOM{name}" in header
    }


def rows_of(frame: Frame, rows: NDArray[np.bool_]) -> Frame:
    """The fibers `rows` of a frame, without what spectra do not take over."""
    assert frame.fibermap is not None
    return Frame(
        frame.wave,
        frame.flux[rows],
        frame.ivar[rows],
        frame.mask[rows],
        frame.fibers[rows],
        resolution=None if frame.resolution is None else frame.resolution[rows],
        fibermap=frame.fibermap.select(frame.fibers[rows]),
        scores=None if frame.scores is None else frame.scores[rows],
        bunit=frame.bunit,
        meta=frame.meta,
    )


def _fibermap(block: Block, arms: Mapping[str, _Told]) -> NDArray[Any]:
    """Rows of one exposure and spectrograph, with NIGHT, EXPID, TILEID, EXPTIME and MJD as columns."""
    first, *others = arms.values()
    columns = {name: first.fibermap.column(name) for name in first.fibermap.rows.dtype.names or ()}
    for other in others:
        if not np.array_equal(other.fibermap.fiber, first.fibermap.fiber):
            raise ValueError(f"frames of spectrograph {block[0]}, exposure {block[2]} differ in their fibers")
        if "FIBERSTATUS" in columns:
            columns["FIBERSTATUS"] = columns["FIBERSTATUS"] | other.fibermap.column("FIBERSTATUS", 0)
    n = len(first.fibermap)
    if "TARGETID" not in columns:  # only made-up fibermaps lack it
        columns["TARGETID"] = first.fibermap.fiber.astype(np.int64)
    columns["NIGHT"], columns["EXPID"] = np.full(n, block[1], "i4"), np.full(n, block[2], "i4")
    for name, keyword, kind in (("TILEID", "TILEID", "i4"), ("EXPTIME", "EXPTIME", "f4"), ("MJD", "MJD-OBS", "f8")):
        value = first.meta.get(keyword)
        columns[name] = np.full(n, value if isinstance(value, (int, float)) else 0, kind)
    return as_table(columns)


def _scores(fibermap: NDArray[Any], arms: Mapping[str, _Told], cards: Mapping[str, Mapping[str, Any]]) -> NDArray[Any]:
    """The scores of all cameras side by side, and effective times; TARGETID alone where none has any."""
    columns: dict[str, NDArray[Any]] = {"TARGETID": fibermap["TARGETID"]}
    for of in arms.values():
        if of.scores is not None:
            columns |= {name: of.scores[name] for name in of.scores.dtype.names or () if name != "TARGETID"}
    table = as_table(columns)
    return with_columns(table, efftime_columns(table, cards))


def _joined(arm: str, found: Mapping[Block, Band], blocks: Sequence[Block], numbers: Sequence[int]) -> Band:
    """All blocks of an arm, one behind the other."""
    having = list(found.values())
    wave = having[0].wave
    for band in having:
        if band.wave.shape != wave.shape or not np.allclose(band.wave, wave, atol=1e-4):
            raise ValueError(f"the frames of arm {arm} stand on different grids; extract them on one")
    ndiag = max(0 if band.resolution is None else band.resolution.shape[1] for band in having)
    shape = (sum(numbers), len(wave))
    flux, ivar = np.zeros(shape), np.zeros(shape)
    mask = np.full(shape, SpecMask.NODATA, np.uint32)
    resolution = np.zeros((shape[0], ndiag, shape[1]), np.float32) if ndiag else None
    at = 0
    for block, number in zip(blocks, numbers, strict=True):
        here = slice(at, at + number)
        at = here.stop
        one = found.get(block)
        if one is None:
            continue
        flux[here], ivar[here], mask[here] = one.flux, one.ivar, one.mask
        if resolution is not None and one.resolution is not None:
            first = (ndiag - one.resolution.shape[1]) // 2
            resolution[here, first : first + one.resolution.shape[1]] = one.resolution
    return Band(wave, flux, ivar, mask, resolution)


def _common_cards(told: Mapping[Block, Mapping[str, _Told]]) -> dict[str, Any]:
    """Cards that all frames, or their fibermaps, agree on and that tell what they are of."""
    kept = {}
    every = [of for arms in told.values() for of in arms.values()]
    for keyword in _CARDS:
        values = {of.meta.get(keyword, of.fibermap.meta.get(keyword)) for of in every}
        if len(values) == 1 and None not in values:
            kept[keyword] = values.pop()
    petals = {block[0] for block in told}
    if len(petals) == 1:
        kept["PETAL"] = kept["SPECTRO"] = petals.pop()
    kept["NIGHT"] = max(block[1] for block in told)
    return kept
