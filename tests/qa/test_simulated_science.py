"""Metrics on spectra against the truth of simulated exposures of the mini instrument, healthy and with a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from algorithms.expected import ExpectedRows
from qa.efftime import Effective_Time
from qa.photometry import band_fluxes, magnitudes
from qa.positions import Fiber_Positions
from qa.skypeaks import Sky_Peaks
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import Fibermap
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.engine.warmup import _Nobody
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult, QASeverity
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import plan_night
from qlstream.simulate.truth import Truth

NIGHT, KINDS, CAMERAS = 20260115, ("arc", "flat", "science-dark", "science-bright"), ("b2", "r2", "z2")
DARK, BRIGHT = KINDS.index("science-dark"), KINDS.index("science-bright")
MINI = load_instrument("mini")


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reduced]:
    """`reduced("r2", DARK, "mispositioned:r2")`: one camera of one exposure, with its arc and flat before it."""
    plans, ranges, buffers = load_plans(), Ranges.load(config_path("qa", "quicklook")), Buffers()

    @cache
    def simulate(faults: tuple[str, ...]) -> tuple[Path, tuple[Path, ...]]:
        folder = tmp_path_factory.mktemp("night")
        parsed = [parse_fault(text, MINI) for text in faults]
        return folder, simulate_night(MINI, NIGHT, folder, CAMERAS, faults=parsed, kinds=KINDS)

    @cache
    def reduce(camera: str, number: int, *faults: str) -> Reduced:
        folder, files = simulate(faults)
        if number > 1:
            reduce(camera, number - 1 if number < BRIGHT else 1, *faults)
        elif number == 1:
            reduce(camera, 0, *faults)
        request = CameraRequest(files[number], camera, folder / "redux", folder / "calib")
        return reduce_camera(request, plans, ranges, _Nobody(), buffers)

    return reduce


@cache
def truth_of(camera: str, number: int) -> Truth:
    return simulate_camera(MINI, camera, plan_night(NIGHT, 1, KINDS)[number], 1).truth


def result_of(reduced: Reduced, name: str) -> QAResult:
    return next(result for _, result in reduced.outcome.judged if result.name == name)


@pytest.mark.parametrize("number", [DARK, BRIGHT])
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_healthy_exposure_raises_no_alarm(reduced, camera, number):
    alarms = [c.why for _, r in reduced(camera, number).outcome.judged for c in r.checks if c.severity == 30]

    assert alarms == []


@pytest.mark.parametrize("camera", CAMERAS)
def test_sky_level_lines_and_magnitude_are_those_of_the_truth(reduced, camera):
    run, truth = reduced(camera, DARK), truth_of(camera, DARK)
    arm, exptime = MINI.arm(camera), run.context.exptime
    with np.errstate(divide="ignore", invalid="ignore"):
        density = truth.sky / np.where(truth.fiberflat > 0, truth.fiberflat, np.nan) / np.gradient(truth.wave, axis=1)
        surface = truth.sky / truth.throughput / np.gradient(truth.wave, axis=1) / exptime / (np.pi * 0.76**2)
    sky = np.flatnonzero(np.isfinite(result_of(run, "Sky_Continuum").per_fiber["SKYCONT_FIBER"]))
    level = np.mean(
        [np.median(density[i, (truth.wave[i] > lo) & (truth.wave[i] < hi)]) for i in sky for lo, hi in arm.sky_windows]
    )
    ones = np.ones(truth.wave[sky].shape, np.float32)
    surface = band_fluxes(truth.wave[sky], surface[sky].astype("f4"), ones, arm.filter_curve, arm.wave_science)
    flattened = run.outcome.outputs["ApplyFiberFlat_QP"]
    ideal = replace(flattened, wave=truth.wave, flux=(density * np.gradient(truth.wave, axis=1)).astype("f4"))

    cont = result_of(run, "Sky_Continuum").metrics["SKYCONT"]
    peak = result_of(run, "Sky_Peaks").metrics["PEAKCOUNT"]
    magnitude = result_of(run, "Sky_Rband").metrics[f"SKY_MAG_{arm.band}"]

    true_peak, true_magnitude = Sky_Peaks().run(ideal, run.context).metrics["PEAKCOUNT"], magnitudes(surface).mean()
    print(f"{camera}: level {cont / level - 1:+.3%}, lines {peak / true_peak - 1:+.3%}, "
          f"magnitude {magnitude - true_magnitude:+.4f}")  # fmt: skip
    # five sky fibers, about 60 rows a window of 10 % noise: 0.6 %; wings of bright neighbours add up to 2 % on mini,
    # and in z none of its windows is free of lines (at full size the benchmarks ask for 1 %)
    assert cont == pytest.approx(level, rel=0.05 if camera[0] == "z" else 0.04)
    assert peak == pytest.approx(true_peak, rel=0.08 if camera[0] == "z" else 0.03)
    assert magnitude == pytest.approx(true_magnitude, abs=0.02)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("number", [DARK, BRIGHT])
def test_the_snr_of_targets_is_what_truth_and_noise_imply(reduced, camera, number):
    run, truth = reduced(camera, number), truth_of(camera, number)
    subtracted, flattened = (run.outcome.outputs[k] for k in ("SkySub_QP", "ApplyFiberFlat_QP"))
    flat = np.where(truth.fiberflat > 0, truth.fiberflat, 1.0)
    readout = np.sqrt(7.0) * MINI.arm(camera).readnoise  # boxcar of 7 pixels
    with np.errstate(divide="ignore", invalid="ignore"):
        of_model = np.where(subtracted.ivar > 0, 1 / subtracted.ivar - 1 / flattened.ivar, 0.0)
        background = (truth.sky + readout**2) / flat**2 + of_model
    background = np.where(subtracted.ivar > 0, background, 0.0)
    rows = (subtracted.flux, truth.target / flat, background, 1.0 / np.median(flat, axis=1))
    implied = ExpectedRows(*(a.astype("f4") for a in rows)).scaled_snr(np.ones(len(flat)))

    result = result_of(run, "Calculate_SNR")

    fibermap = subtracted.fibermap
    targets = (fibermap.objtype == "TGT") & fibermap.is_usable("flux", camera[0]) & np.isfinite(implied)
    ratio = result.per_fiber["MEDIAN_SNR"][targets].sum() / implied[targets].sum()
    print(f"{camera} {KINDS[number]}: S/N {ratio:.4f} of what is implied")
    # 33 targets with errors of 1.25 / sqrt(500) = 0.056 each, of a sum of 40 to 200; read noise differs by amplifier
    # in z most of mini's rows are in lines, and the error of their model differs from row to row
    assert ratio == pytest.approx(1, abs=0.05 if camera[0] == "z" else 0.03)


def test_misplaced_fibers_alarm_in_every_arm_of_their_petal_by_coordinates_and_by_light(reduced):
    for camera in CAMERAS:
        run = reduced(camera, DARK, "mispositioned:r2:0-9")
        subtracted = run.outcome.outputs["SkySub_QP"]
        rows = subtracted.fibermap.rows
        bare = rows[[name for name in rows.dtype.names if not name.startswith("DELTA")]]
        blind = replace(subtracted, fibermap=Fibermap(bare, subtracted.fibermap.meta))

        by_both = result_of(run, "Fiber_Positions")
        by_light = Fiber_Positions().run(blind, run.context)

        assert {c.metric: c.severity for c in by_both.checks}["NOFFTARGET"] == QASeverity.ALARM
        assert by_both.metrics["NOFFTARGET"] >= 8
        print(f"{camera}: {by_light.summary}")
        assert "NPOORPOS" not in by_light.metrics
        off = set(np.flatnonzero(by_light.per_fiber["LIGHT_RATIO"] < 0.7))
        assert off
        assert off <= set(range(10))
        assert {c.metric: c.severity for c in by_light.checks}["LOST_FRACTION"] == QASeverity.ALARM


def test_a_near_moon_costs_effective_time(reduced):
    dark = result_of(reduced("b2", DARK), "Effective_Time")
    moonlit = result_of(reduced("b2", DARK, "moonlit"), "Effective_Time")

    assert moonlit.metrics["SPEED"] < 0.35 * dark.metrics["SPEED"]  # nine times the continuum, in part readout noise
    assert moonlit.metrics["TRANSPARENCY"] == pytest.approx(dark.metrics["TRANSPARENCY"], abs=0.03)


def test_effective_time_needs_electrons(reduced):
    calibrated = reduced("r2", DARK).outcome.outputs["ApplyFluxCalibration"]

    with pytest.raises(ValueError, match="needs sky-subtracted electron"):
        Effective_Time().run(calibrated, reduced("r2", DARK).context)
