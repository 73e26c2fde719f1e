import numpy as np
import pytest

from qa.residual import Sky_Residual
from qa.sky import Sky_Continuum
from qlstream.datamodel.masks import FiberMask


def test_the_sky_continuum_is_the_level_between_the_lines_per_angstrom(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(1)
    classes = ["SKY"] * 6 + ["ELG"] * 34
    status = np.zeros(40, int)
    status[5] = FiberMask.BADPOSITION
    qframe = make_qframe(np.zeros((40, 500)), 1 / 100, fibermap=make_fibermap(classes, FIBERSTATUS=status))
    level = 20.0  # electron/Angstrom
    flux = level * qframe.dwave + rng.normal(0, 1, qframe.flux.shape)
    flux[:, ::37] += 5000  # lines and cosmic rays
    flux[5] += 1e4  # an unusable sky fiber
    flux[6:] += 300  # targets

    result = Sky_Continuum().run(make_qframe(flux, 1 / 100, qframe.wave, fibermap=qframe.fibermap), make_context())

    assert result.metrics["NSKY_FIB"] == 5
    # error of a median of about 60 rows of 1 electron each 3.7 Angstrom wide, 5 fibers, 2 windows: 0.02
    assert result.metrics["SKYCONT"] == pytest.approx(level, abs=0.1)
    assert result.metrics["SKYCONT_RATE"] == pytest.approx(level / 1000, rel=0.01)
    assert np.isnan(result.per_fiber["SKYCONT_FIBER"][5:]).all()


def test_residuals_of_right_errors_have_unit_noise_and_chi2(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(2)
    nsky, ny = 10, 1000
    sky = np.full((40, ny), 50.0)
    sky[:, ::20] = 2000.0
    variance = sky + 9
    residual = rng.normal(size=sky.shape) * np.sqrt(variance)
    ivar = 1 / variance
    ivar[:, 100:120], residual[:, 100:120] = 0.0, np.nan
    fibermap = make_fibermap(["SKY"] * nsky + ["ELG"] * 30)
    qframe = make_qframe(residual, ivar, fibermap=fibermap, sky=sky.astype(np.float32))

    result = Sky_Residual().run(qframe, make_context())

    n = nsky * 980
    print({k: round(v, 4) for k, v in result.metrics.items()})
    assert result.metrics["RESIDNOISE"] == pytest.approx(1, abs=5 * 1.17 / np.sqrt(2 * n))
    assert result.metrics["SKYCHI2"] == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert result.metrics["SKYCHI2_LINES"] == pytest.approx(1, abs=5 * np.sqrt(2 / (nsky * 49)))
    assert result.metrics["NBAD_PCHI"] == 0
    assert result.severity == 0


def test_one_badly_subtracted_fiber_is_found(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(3)
    residual = rng.normal(size=(40, 500)) * 5
    residual[7] += 3.0
    fibermap = make_fibermap(["SKY"] * 10 + ["ELG"] * 30)
    qframe = make_qframe(residual, 1 / 25, fibermap=fibermap, sky=np.ones((40, 500), np.float32))

    result = Sky_Residual().run(qframe, make_context())

    assert result.metrics["NBAD_PCHI"] == 1
    assert np.nanargmax(result.per_fiber["SKYCHI2_FIB"]) == 7
