from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qa.fiberflat import Check_FiberFlat
from qlstream.calibration.served import Calibration
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.pipeline.result import QASeverity

NWAVE = 400
EXPTIME = 120.0


@pytest.fixture
def flat():
    """Forty fibers with a scatter of 5 %, each known to 0.1 %, of a lamp of 45 electron/Angstrom/s."""
    rng = np.random.default_rng(6)
    wave = np.linspace(5700, 7700, NWAVE)
    value = (1 + 0.05 * rng.normal(size=(40, 1))) * (1 + 0.01 * np.sin(wave / 300 + rng.uniform(0, 6, (40, 1))))
    value = value / np.median(value, axis=0) + 0.001 * rng.normal(size=value.shape)
    return FiberFlat(
        wave=wave,
        fiberflat=value,
        ivar=np.full(value.shape, 1e6),
        mask=np.zeros(value.shape, np.uint32),
        meanspec=np.full(NWAVE, 45.0 * EXPTIME),
        fibers=np.arange(40, dtype=np.int32),
    )


def check(flat, make_context, before=None, **params):
    parts = {} if before is None else {"FIBERFLAT": before}
    context = make_context(
        flavor="flat", program="", header={"EXPTIME": EXPTIME}, calibration=Calibration("r3", 20260114, parts)
    )
    return Check_FiberFlat(params).run(flat, context)


def severities(result):
    return {c.metric: c.severity for c in result.checks}


def test_a_healthy_flat_is_normal_and_its_lamp_is_measured(flat, make_context):
    result = check(flat, make_context, before=flat)

    assert result.severity == QASeverity.NORMAL
    assert len(result.checks) == 7
    assert result.metrics["FLATLAMP_RATE"] == pytest.approx(45.0)
    middle = np.median(flat.fiberflat[10:30], axis=0)
    inside = (flat.wave >= 5760) & (flat.wave <= 7620)
    expected = 45.0 * np.trapezoid(middle[inside], flat.wave[inside])
    assert result.metrics["INTEG_FLUX"] == pytest.approx(expected)
    assert result.metrics["CHECKFLAT"] == pytest.approx(flat.fiberflat.mean())
    np.testing.assert_allclose(result.per_fiber["FLATMEAN"], flat.fiberflat.mean(axis=1))
    np.testing.assert_allclose(result.per_fiber["FLATRMS"], flat.fiberflat.std(axis=1))


def test_masked_bins_do_not_count(flat, make_context):
    value, ivar, mask = flat.fiberflat.copy(), flat.ivar.copy(), flat.mask.copy()
    value[3, :100], ivar[3, :100], mask[3, :100] = 1.0, 0.0, SpecMask.BADFIBERFLAT
    value[5] = np.nan
    ivar[5], mask[5] = 0.0, SpecMask.BADFIBERFLAT

    result = check(replace(flat, fiberflat=value, ivar=ivar, mask=mask), make_context)

    assert result.per_fiber["FLATMEAN"][3] == pytest.approx(flat.fiberflat[3, 100:].mean())
    assert np.isnan(result.per_fiber["FLATMEAN"][5])
    assert result.metrics["CHECKFLAT"] == pytest.approx(np.delete(result.per_fiber["FLATMEAN"], 5).mean())


@pytest.mark.parametrize(("factor", "severity"), [(1.0, "NORMAL"), (0.65, "WARNING"), (0.4, "ALARM"), (8.0, "ALARM")])
def test_the_lamp_is_judged_although_the_flat_looks_perfect(flat, make_context, factor, severity):
    result = check(replace(flat, meanspec=factor * flat.meanspec), make_context)

    found = severities(result)
    assert found["FLATLAMP_RATE"] == found["INTEG_FLUX"] == QASeverity[severity]
    assert found["CHECKFLAT"] == QASeverity.NORMAL


def test_dead_and_dim_fibers_are_named_but_not_those_known_to_be(flat, make_context, make_fibermap):
    value, ivar = flat.fiberflat.copy(), flat.ivar.copy()
    ivar[[4, 7]] = 0
    value[[10, 12, 14]] *= 0.4
    status = np.zeros(40, int)
    status[7], status[12] = FiberMask.BROKENFIBER, FiberMask.LOWTRANSMISSION

    result = check(
        replace(flat, fiberflat=value, ivar=ivar, fibermap=make_fibermap(["SKY"] * 40, FIBERSTATUS=status)),
        make_context,
    )

    assert "dead: FIBER 4; dim: FIBER 10, 14" in result.summary
    assert result.metrics["DEADFIB_FRACTION"] == pytest.approx(1 / 39)
    assert result.metrics["DIMFIB_FRACTION"] == pytest.approx(2 / 39)
    assert severities(result)["DIMFIB_FRACTION"] == QASeverity.WARNING


def test_fibers_are_compared_with_the_flat_before_whatever_its_order_and_grid(flat, make_context):
    order = np.arange(39, 1, -1)
    wave = np.linspace(5600, 7600, 333)
    before = FiberFlat(
        wave=wave,
        fiberflat=np.array([np.interp(wave, flat.wave, f) for f in flat.fiberflat[order]]),
        ivar=np.full((38, 333), 1e6),
        mask=np.zeros((38, 333), np.uint32),
        meanspec=np.ones(333),
        fibers=flat.fibers[order],
    )
    before.ivar[0] = 0  # FIBER 39 had none
    value = flat.fiberflat.copy()
    value[20:26] *= 0.8

    result = check(replace(flat, fiberflat=value), make_context, before=before)

    ratio = result.per_fiber["FLATRATIO"]
    assert np.isnan(ratio[[0, 1, 39]]).all()
    np.testing.assert_allclose(ratio[20:26], 0.8, rtol=2e-4)  # a median of some 300 bins of 0.15 % each
    np.testing.assert_allclose(ratio[2:20], 1.0, rtol=5e-4)
    assert "changed: FIBER 20, 21, 22, 23, 24, 25" in result.summary
    assert result.metrics["CHANGEDFIB_FRACTION"] == pytest.approx(6 / 37)
    assert severities(result)["CHANGEDFIB_FRACTION"] == QASeverity.ALARM


def test_without_an_earlier_flat_nothing_is_said_about_changes(flat, make_context):
    result = check(flat, make_context)

    assert not {"FLATRATIO_NMAD", "CHANGEDFIB_FRACTION"} & {c.metric for c in result.checks}
    assert "FLATRATIO" not in result.per_fiber


def test_what_cannot_be_measured_is_unknown_and_spoils_nothing(flat, make_context):
    context = make_context(flavor="flat", program="", header={})

    result = Check_FiberFlat().run(replace(flat, ivar=np.zeros(flat.ivar.shape)), context)

    found = severities(result)
    assert found["CHECKFLAT"] == found["FLATLAMP_RATE"] == QASeverity.UNKNOWN
    assert found["DEADFIB_FRACTION"] == QASeverity.ALARM
