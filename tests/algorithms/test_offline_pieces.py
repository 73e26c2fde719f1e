"""Scores, barycentric correction and narrow spikes against known values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.barycentric import LIGHT, Site, barycentric_factor
from algorithms.cosmics import mask_cosmics
from algorithms.scores import coadd_scores, frame_scores
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.spectra import Band, Spectra

WAVE = 5800.0 + 0.8 * np.arange(400)


def frame(flux: np.ndarray, ivar: float = 0.25) -> Frame:
    shape = flux.shape
    bands = Resolution.from_widths(np.full(shape[1], 1.1), 11).data
    return Frame(
        WAVE, flux, np.full(shape, ivar), np.zeros(shape, np.uint32), np.arange(shape[0], dtype=np.int32),
        resolution=np.repeat(bands[None], shape[0], axis=0), meta={"CAMERA": "r0"},
    )  # fmt: skip


def test_scores_of_a_flat_spectrum_are_its_level() -> None:
    given = frame(np.full((3, 400), 10.0))
    given.mask[1, :100] = 1
    raw = frame_scores(given, "RAW")
    assert raw["MEDIAN_RAW_COUNT_R"] == pytest.approx([10, 10, 10])
    assert raw["SUM_RAW_COUNT_R"] == pytest.approx([4000, 3000, 4000])
    assert raw["MEDIAN_RAW_SNR_R"] == pytest.approx([5 / np.sqrt(0.8)] * 3)
    both = frame_scores(replace(given, scores=raw), "CALIB")
    assert both["INTEG_CALIB_FLUX_R"] == pytest.approx([3200, 2400, 3200])
    assert "SUM_RAW_COUNT_R" in both.dtype.names
    with pytest.raises(ValueError, match="no stage 'COADD'"):
        frame_scores(given, "COADD")


def test_scores_of_a_coadd_name_its_arms() -> None:
    rows = np.zeros(2, dtype=[("TARGETID", "i8")])
    shape = (2, 400)
    spectra = Spectra({"r": Band(WAVE, np.full(shape, 2.0), np.ones(shape), np.zeros(shape, np.uint32))}, rows)
    scores = coadd_scores(spectra)
    assert scores["MEDIAN_COADD_FLUX_R"] == pytest.approx([2, 2])
    assert scores["INTEG_COADD_FLUX_R"] == pytest.approx([640, 640])


def test_the_earth_moves_towards_a_target_on_the_ecliptic_in_spring_and_away_in_autumn() -> None:
    """At RA 6h on the ecliptic the Earth approaches at nearly its full 30 km/s at the September equinox's end."""
    header = {"TARGTRA": 90.0, "TARGTDEC": 23.44, "EXPTIME": 0.0}
    velocity = [(barycentric_factor({**header, "MJD-OBS": mjd}) - 1) * LIGHT for mjd in (60210.0, 60392.0)]
    print("km/s", velocity)
    assert velocity[0] == pytest.approx(29.8, abs=1.2)  # 2023-09-23
    assert velocity[1] == pytest.approx(-29.8, abs=1.2)  # 2024-03-23


def test_the_rotation_of_the_earth_is_in_it() -> None:
    """Against the pole, which only orbits, a site on the equator moves by 0.465 km/s to and fro."""
    header = {"TARGTRA": 90.0, "TARGTDEC": 0.0, "EXPTIME": 0.0}
    factors = {
        latitude: np.array(
            [barycentric_factor({**header, "MJD-OBS": 60300.0 + h / 24}, Site(latitude, 0.0, 0.0)) for h in range(24)]
        )
        for latitude in (0.0, 89.99)
    }
    swing = np.ptp(factors[0.0] - factors[89.99]) * LIGHT
    assert swing == pytest.approx(2 * 0.465, rel=0.03)


def test_without_pointing_or_time_there_is_no_correction() -> None:
    with pytest.raises(KeyError, match="pointing"):
        barycentric_factor({"MJD-OBS": 60000.0})
    with pytest.raises(KeyError, match="MJD-OBS"):
        barycentric_factor({"TARGTRA": 1.0, "TARGTDEC": 1.0})


def test_spikes_narrower_than_the_resolution_are_flagged_and_lines_are_not() -> None:
    rng = np.random.default_rng(8)
    line = np.zeros(400)
    line[[90, 200, 311]] = (4000.0, 900.0, 300.0)
    smooth = np.full(400, 100.0) + Resolution.from_widths(np.full(400, 1.1), 11) @ line
    flux = smooth + rng.normal(0, 2.0, (20, 400))
    hits = [(k, 30 + 17 * k) for k in range(20) if all(abs(30 + 17 * k - c) > 8 for c in (90, 200, 311))]
    for k, at in hits:
        flux[k, at] += 80.0
    found = (mask_cosmics(frame(flux)).mask & np.uint32(SpecMask.COSMIC)) != 0
    assert all(found[k, at] for k, at in hits)
    found[tuple(np.array(hits).T)] = False
    for k, at in hits:
        found[k, max(at - 2, 0) : at + 3] = False
    print(f"{len(hits)} hits found, {found.sum()} other bins flagged of {found.size}")
    assert found[:, [89, 90, 91, 199, 200, 201]].sum() == 0, "lines are light"
    assert found.sum() < 0.01 * found.size
