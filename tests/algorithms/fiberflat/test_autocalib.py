"""Flats of all petals under several lamps, brought to one scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algorithms.fiberflat.autocalib import autocalib_fiberflat
from algorithms.steps.fiberflat import AutocalibFiberFlatStep
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.io.fiberflat import read_fiberflat, write_fiberflat
from qlstream.pipeline.filestep import StepFiles

NPETAL, NSPEC, NWAVE = 5, 30, 250
WAVE = 5800 + 1.6 * np.arange(NWAVE)
U = np.linspace(-1, 1, NWAVE)
NOISE = 1e-3
# slopes of the light over the focal plane [fraction at 400 mm]: together they cancel
LAMPS = {"lamp 0": (0.03, 0.02), "lamp 1": (-0.05, 0.01), "lamp 2": (0.02, -0.03)}


class Telescope:
    """Fibers over the focal plane with vignetting, and petals of different color and throughput."""

    def __init__(self) -> None:
        rng = np.random.default_rng(6)
        radius = 400 * np.sqrt(rng.uniform(0.02, 1, (NPETAL, NSPEC)))
        angle = 2 * np.pi * (np.arange(NPETAL)[:, None] + rng.uniform(0, 1, (NPETAL, NSPEC))) / NPETAL
        self.x, self.y = radius * np.cos(angle), radius * np.sin(angle)
        vignetting = 1 - 0.08 * (radius / 400) ** 2
        color = (0.9 + 0.05 * np.arange(NPETAL))[:, None] * (1 + 0.1 * np.sin(np.arange(NPETAL)[:, None] + 2 * U))
        fiber = vignetting * (1 + 0.04 * rng.normal(size=(NPETAL, NSPEC)))
        self.throughput = fiber[:, :, None] * color[:, None, :]
        self.rng = rng

    def flat(self, petal: int, lamp: str, expid: int = 1, level: float = 1.0) -> FiberFlat:
        """As a camera's own flat: relative to the median fiber of the petal."""
        slope = LAMPS[lamp]
        light = 1 + (slope[0] * self.x[petal] + slope[1] * self.y[petal]) / 400
        seen = self.throughput[petal] * light[:, None]
        median = np.median(seen, axis=0)
        shape = seen.shape
        rows = np.zeros(
            NSPEC, [("FIBER", "i4"), ("FIBERSTATUS", "i4"), ("FIBERASSIGN_X", "f4"), ("FIBERASSIGN_Y", "f4")]
        )
        rows["FIBER"] = NSPEC * petal + np.arange(NSPEC)
        rows["FIBERASSIGN_X"], rows["FIBERASSIGN_Y"] = self.x[petal], self.y[petal]
        spectrum = level * 1e4 * (1 + 0.3 * np.cos(5 * U)) * median
        return FiberFlat(
            WAVE, seen / median + NOISE * self.rng.normal(size=shape), np.full(shape, NOISE**-2.0),
            np.zeros(shape, np.uint32), spectrum * (1 + NOISE * self.rng.normal(size=NWAVE)), rows["FIBER"].copy(),
            1.0, Fibermap(rows), {"CAMERA": f"r{petal}", "PROGRAM": lamp, "EXPID": expid, "NIGHT": 20260114},
        )  # fmt: skip

    def exposure(self, lamp: str, expid: int = 1, level: float = 1.0) -> list[FiberFlat]:
        return [self.flat(petal, lamp, expid, level) for petal in range(NPETAL)]

    @property
    def truth(self) -> np.ndarray:
        """(npetal, nspec, nwave) what the flats must be."""
        return self.throughput / np.median(np.median(self.throughput, axis=1), axis=0)


@pytest.fixture
def telescope() -> Telescope:
    return Telescope()


def relative_error(flats: list[FiberFlat], telescope: Telescope) -> np.ndarray:
    return np.stack([f.fiberflat for f in flats]) / telescope.truth - 1


def test_all_petals_come_on_one_scale_and_lamps_of_different_places_cancel(telescope):
    exposures = [telescope.exposure(lamp, level=1 + n) for n, lamp in enumerate(LAMPS)]

    made = autocalib_fiberflat(exposures)
    single = autocalib_fiberflat(exposures[:1])

    error, alone = relative_error(made, telescope), relative_error(single, telescope)
    print(f"rms {100 * error.std():.3f} %, of one lamp {100 * alone.std():.2f} %; mean {100 * error.mean():+.3f} %")
    assert [f.meta["CAMERA"] for f in made] == [f"r{p}" for p in range(NPETAL)]
    # three lamps of 0.1 % noise each leave 0.06 %; the median fiber that sets the scale is another one under each lamp
    assert error.std() < 0.0015
    assert np.abs(error.mean(axis=(1, 2))).max() < 0.002
    assert alone.std() > 0.01
    level = np.median([np.median(f.fiberflat, axis=0) for f in made], axis=0)
    np.testing.assert_allclose(level, 1, atol=1e-6)
    pull = (error - error.mean(axis=1, keepdims=True)) * telescope.truth * np.sqrt([f.ivar for f in made])
    assert np.median(np.std(pull, axis=2)) == pytest.approx(1, abs=0.1)


def test_every_lamp_counts_alike_however_many_exposures_it_has(telescope):
    exposures = [telescope.exposure(lamp) for lamp in ("lamp 0", "lamp 0", "lamp 0", "lamp 1", "lamp 2")]

    error = relative_error(autocalib_fiberflat(exposures, [1 / 3, 1 / 3, 1 / 3, 1, 1]), telescope)

    assert error.std() < 0.0015


def test_missing_petals_and_dead_fibers_do_not_tilt_the_others(telescope):
    exposures = [telescope.exposure(lamp) for lamp in LAMPS]
    for flats in exposures:
        flats[2].fiberflat[:3] = 0.05
        flats[2].mask[5, :100] = SpecMask.ALLBADPIX
    exposures[1] = exposures[1][1:]

    made = autocalib_fiberflat(exposures)

    error = relative_error(made, telescope)
    alive = np.ones(error.shape, bool)
    alive[2, :3] = alive[2, 5, :100] = False
    scale = np.median(error, axis=(0, 1))  # another fiber is the median one of petal 2: this moves them all together
    print(f"rms {100 * (error - scale)[alive].std():.3f} %, scale {100 * scale.mean():+.3f} %")
    assert (error - scale)[alive].std() < 0.0015
    assert np.abs(scale).max() < 0.01
    assert (made[2].ivar[5, :100] == 0).all()
    assert (made[2].mask[5, :100] & SpecMask.BADFIBERFLAT > 0).all()
    status = made[2].fibermap.column("FIBERSTATUS")
    assert np.flatnonzero(status & int(FiberMask.BADFLAT)).tolist() == [5]


def test_spikes_and_short_gaps_are_bridged_with_a_larger_error(telescope):
    exposures = [telescope.exposure(lamp) for lamp in LAMPS]
    for flats in exposures:
        flats[0].fiberflat[4, 50] = 3.0
        flats[0].mask[7, 80:84] = SpecMask.COSMIC

    made = autocalib_fiberflat(exposures)[0]

    for fiber, bins in ((4, slice(50, 51)), (7, slice(80, 84))):
        assert (made.mask[fiber, bins] == 0).all()
        np.testing.assert_allclose(made.fiberflat[fiber, bins], telescope.truth[0, fiber, bins], rtol=0.01)
        assert (made.ivar[fiber, bins] < 0.55 * made.ivar[fiber, bins.start - 1]).all()
    assert (made.ivar > 0).all()


def test_without_positions_the_mean_of_all_lamps_is_taken(telescope):
    exposures = [[replace(f, fibermap=None) for f in telescope.exposure(lamp)] for lamp in LAMPS]

    assert relative_error(autocalib_fiberflat(exposures), telescope).std() < 0.0015


def test_flats_that_do_not_belong_together_are_refused(telescope):
    flats = telescope.exposure("lamp 0")
    blue = replace(flats[1], meta={**flats[1].meta, "CAMERA": "b1"})
    with pytest.raises(ValueError, match="no flats"):
        autocalib_fiberflat([])
    with pytest.raises(ValueError, match="one arm"):
        autocalib_fiberflat([[flats[0], blue]])
    with pytest.raises(ValueError, match="once"):
        autocalib_fiberflat([[flats[0], flats[0]]])
    with pytest.raises(ValueError, match="other wavelengths"):
        autocalib_fiberflat([[flats[0], replace(flats[1], wave=WAVE + 1)]])
    with pytest.raises(ValueError, match="different fibers"):
        autocalib_fiberflat([flats, [replace(flats[0], fibers=flats[0].fibers + 1)]])


def test_the_step_takes_files_and_writes_one_flat_per_camera(telescope, tmp_path: Path):
    paths = []
    for expid, lamp in enumerate(["lamp 0", "lamp 0", "lamp 1", "lamp 2"]):
        for flat in telescope.exposure(lamp, expid):
            paths.append(tmp_path / f"fiberflat-{flat.meta['CAMERA']}-{expid:08d}.fits")
            write_fiberflat(paths[-1], flat)

    AutocalibFiberFlatStep().run(StepFiles({"fiberflats": tuple(paths)}, {"folder": tmp_path / "night"}))

    made = sorted((tmp_path / "night").iterdir())
    assert [p.name for p in made] == [f"fiberflatnight-r{p}-20260114.fits" for p in range(NPETAL)]
    assert relative_error([read_fiberflat(p) for p in made], telescope).std() < 0.0015
