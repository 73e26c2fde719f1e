import numpy as np
import pytest

from qa.fiberlight import aperture_fraction, expected_flux
from qa.positions import Fiber_Positions
from qlstream.datamodel.masks import FiberMask
from qlstream.pipeline.result import QASeverity

NSPEC = 40


def severities(result):
    return {c.metric: c.severity for c in result.checks}


@pytest.fixture
def observe(make_context, make_qframe, make_fibermap):
    def run(share, delta=None, clouds=1.0, sizes=0.0, **columns):
        """Counts of targets of 20 nanomaggies of which `share` enters, besides noise; offsets `delta` [mm]."""
        rng = np.random.default_rng(1)
        size = np.broadcast_to(sizes, (NSPEC,)).astype(float)
        inside = aperture_fraction(1.5, 1.0, size)
        counts = 10.0 * clouds * np.asarray(share) * inside * 20.0
        flux = counts[:, None] + rng.normal(size=(NSPEC, 800)) * np.sqrt(counts[:, None] + 150.0)
        given = {"FLUX_R": np.full(NSPEC, 20.0), "FIBERFLUX_R": 20.0 * inside, "SHAPE_R": size}
        if delta is not None:
            given |= {"DELTA_X": np.asarray(delta, float), "DELTA_Y": np.zeros(NSPEC)}
        fibermap = make_fibermap(["SKY"] * 5 + ["ELG"] * 35, **(given | columns))
        qframe = make_qframe(
            flux, 1 / (counts[:, None] + 150.0), fibermap=fibermap, sky=np.full((NSPEC, 800), 100, np.float32)
        )
        return Fiber_Positions().run(qframe, make_context(header={"EXPTIME": 900.0, "SEEING": 1.0}))

    return run


def misplaced(n, value, otherwise):
    out = np.full(NSPEC, otherwise)
    out[5 : 5 + n] = value
    return out


def test_well_placed_fibers_raise_nothing(observe):
    result = observe(np.ones(NSPEC), np.full(NSPEC, 0.005))

    assert result.metrics["NGOODPOS"] == NSPEC
    assert result.metrics["NLOST"] == result.metrics["NOFFTARGET"] == 0
    assert result.metrics["OFFSET_RMS"] == pytest.approx(5.0)
    assert result.severity == QASeverity.NORMAL


def test_ten_misplaced_fibers_alarm_by_coordinates_and_by_light(observe):
    result = observe(misplaced(10, 0.25, 1.0), misplaced(10, 0.085, 0.005))

    assert result.metrics["NOFFTARGET"] == result.metrics["NLOST"] == 10
    assert result.metrics["LOST_FRACTION"] == pytest.approx(10 / 35)
    assert result.metrics["BADPOS_FRACTION"] == 0
    found = severities(result)
    assert found["NOFFTARGET"] == found["NLOST"] == found["LOST_FRACTION"] == QASeverity.ALARM
    assert "FIBER 5, 6, 7" in result.summary


def test_light_alone_tells_where_the_fibermap_has_no_coordinates(observe):
    result = observe(misplaced(10, 0.25, 1.0))

    assert "OFFSET_RMS" not in result.metrics
    assert result.metrics["NOFFTARGET"] == 10
    assert severities(result)["NOFFTARGET"] == QASeverity.ALARM


def test_coordinates_alone_tell_where_the_light_cannot(observe):
    """Targets far below the sky's error."""
    result = observe(np.full(NSPEC, 0.001), misplaced(10, 0.2, 0.005), clouds=0.01)

    assert "NLOST" not in result.metrics
    assert result.metrics["BADPOS_FRACTION"] == pytest.approx(10 / NSPEC)
    assert severities(result)["NOFFTARGET"] == QASeverity.ALARM


def test_clouds_over_all_fibers_are_no_lost_fibers(observe):
    result = observe(np.ones(NSPEC), clouds=0.3)

    assert result.metrics["NLOST"] == 0


def test_light_of_cosmic_rays_in_faint_targets_does_not_make_the_others_lost(observe):
    """Three bright stars, and faint targets of which some show a hundred times their light."""
    faint = np.where(np.arange(NSPEC) < 8, 20.0, 0.3)
    share = np.where(np.arange(NSPEC) % 6 == 5, 100.0, 1.0) * faint / 20.0
    share[:8] = 1.0

    result = observe(share, FLUX_R=faint, FIBERFLUX_R=faint * aperture_fraction(1.5, 1.0))

    assert result.metrics["NLOST"] == 0
    assert np.isfinite(result.per_fiber["LIGHT_RATIO"]).sum() == 3


def test_large_galaxies_are_not_lost(observe):
    """Their fiber flux says how little of them enters; by their total flux they would have lost most of it."""
    result = observe(np.ones(NSPEC), sizes=np.where(np.arange(NSPEC) % 3 == 0, 2.0, 0.0))

    assert result.metrics["NLOST"] == 0
    np.testing.assert_allclose(np.nanmedian(result.per_fiber["LIGHT_RATIO"]), 1, atol=0.02)


def test_stuck_and_unassigned_fibers_are_nobodys_fault_but_a_missing_position_is(observe):
    status, delta = np.zeros(NSPEC, int), np.full(NSPEC, 0.005)
    status[10], delta[10] = FiberMask.STUCKPOSITIONER, 3.0
    delta[20] = np.nan
    status[21] = FiberMask.MISSINGPOSITION

    result = observe(np.ones(NSPEC), delta, FIBERSTATUS=status)

    assert result.metrics["NPOORPOS"] == 2
    assert result.metrics["BADPOS_FRACTION"] == pytest.approx(1 / 39)
    assert np.isnan(result.per_fiber["OFFSET_FIB"][10])


def test_the_expected_flux_follows_seeing_and_size(make_fibermap):
    size = np.array([0.0, 0.0, 1.0, 0.0])
    fibermap = make_fibermap(
        ["ELG"] * 4, FLUX_R=np.array([10.0, 10.0, 10.0, 0.0]), SHAPE_R=size,
        FIBERFLUX_R=np.array([7.897, 0.0, 10 * aperture_fraction(1.5, 1.0, 1.0), 0.0]),
    )  # fmt: skip

    nominal = expected_flux(fibermap, "R", 1.5, 1.0)
    worse = expected_flux(fibermap, "R", 1.5, 1.6)

    np.testing.assert_allclose(nominal[:2], 7.897, rtol=1e-3)  # 0.789 of a point source, from FLUX if need be
    assert np.isnan(nominal[3])
    loss = worse / nominal
    assert loss[0] == pytest.approx(float(aperture_fraction(1.5, 1.6) / aperture_fraction(1.5, 1.0)))
    assert loss[0] < loss[2] < 1
