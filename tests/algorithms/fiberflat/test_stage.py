from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.fiberflat.stage import ApplyFiberFlat_QP, ComputeFiberflat_QP
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import FiberMask, SpecMask


def lamp(wave):
    return 18000 * (1 + 0.2 * np.sin(wave / 60)) / (1 + np.exp(-(wave - 5740) / 12))  # with a dichroic's edge


@pytest.fixture
def qframe(spectrograph):
    return spectrograph.observe(lamp(spectrograph.wave))


def true_flat(spectrograph, flat, live=slice(None)):
    throughput = spectrograph.throughput(flat.wave)
    return throughput / np.median(throughput[live], axis=0)


def test_the_flat_agrees_with_the_truth_within_its_own_errors(spectrograph, qframe, make_context):
    flat = ComputeFiberflat_QP().run(qframe, make_context(flavor="flat"))

    good = flat.mask == 0
    error = (flat.fiberflat - true_flat(spectrograph, flat))[good]
    pull = error * np.sqrt(flat.ivar[good])
    nmad = 1.4826 * np.median(np.abs(error))
    print(f"flat: nmad {100 * nmad:.3f} %, worst {100 * np.abs(error).max():.2f} %; pull rms {pull.std():.2f}; "
          f"chi2/dof {flat.chi2pdf:.4f}")  # fmt: skip
    assert good.mean() > 0.9
    assert nmad < 0.002  # rows have 1 % each
    assert np.abs(error).max() < 0.03
    assert 0.8 < pull.std() < 1.4  # the median of 60 fibers has a noise of its own
    assert flat.chi2pdf == pytest.approx(1.0, abs=5 * np.sqrt(2 / flat.fiberflat.size))


def test_the_median_fiber_is_one_at_each_wavelength(qframe, make_context):
    flat = ComputeFiberflat_QP().run(qframe, make_context(flavor="flat"))

    everywhere = (flat.mask == 0).all(axis=0)
    np.testing.assert_allclose(np.median(flat.fiberflat[:, everywhere], axis=0), 1.0, rtol=1e-12)


def test_the_mean_spectrum_is_the_lamp_in_the_median_fiber(spectrograph, qframe, make_context):
    flat = ComputeFiberflat_QP().run(qframe, make_context(flavor="flat"))

    median = np.median(spectrograph.throughput(flat.wave), axis=0)
    inside = (flat.mask == 0).all(axis=0)
    np.testing.assert_allclose(flat.meanspec[inside], (lamp(flat.wave) * median)[inside], rtol=0.01)


def test_cosmic_rays_and_masked_rows_do_not_mark_the_flat(spectrograph, qframe, make_context):
    flux, ivar = qframe.flux.copy(), qframe.ivar.copy()
    hit = spectrograph.rng.uniform(size=flux.shape) < 1e-3
    flux[hit] += 30000
    flux[5, 400:430], ivar[5, 400:430] = np.nan, 0

    flat = ComputeFiberflat_QP().run(replace(qframe, flux=flux, ivar=ivar), make_context(flavor="flat"))

    good = flat.mask == 0
    error = np.abs(flat.fiberflat - true_flat(spectrograph, flat))[good]
    print(f"worst {100 * error.max():.2f} %")
    assert error.max() < 0.03


def test_dark_and_forbidden_fibers_are_masked_and_leave_the_others_alone(spectrograph, make_context, make_fibermap):
    status = np.zeros(spectrograph.nspec, np.int32)
    status[9] = FiberMask.BROKENFIBER
    spectrograph.gray[4] = 0.0
    qframe = spectrograph.observe(lamp(spectrograph.wave))
    fibermap = make_fibermap(["SKY"] * spectrograph.nspec, FIBERSTATUS=status)

    flat = ComputeFiberflat_QP().run(replace(qframe, fibermap=fibermap), make_context(flavor="flat"))

    live = np.ones(spectrograph.nspec, bool)
    live[[4, 9]] = False
    assert (flat.mask[~live] == SpecMask.BADFIBERFLAT).all()
    assert (flat.ivar[~live] == 0).all()
    assert (flat.fiberflat[~live] == 1).all()
    good = (flat.mask == 0) & live[:, None]
    assert good[live].mean() > 0.9
    assert np.abs(flat.fiberflat - true_flat(spectrograph, flat, live))[good].max() < 0.03


def test_a_flat_without_lamp_light_makes_no_fiber_flat(spectrograph, make_context):
    with pytest.raises(MissingCalibration, match="no lamp light"):
        ComputeFiberflat_QP().run(spectrograph.observe(0 * spectrograph.wave), make_context(flavor="flat"))


def exact_flat(spectrograph, error=0.0, **given):
    wave = np.linspace(spectrograph.wave.min(), spectrograph.wave.max(), 1500)
    value = spectrograph.throughput(wave)
    fields = {
        "wave": wave,
        "fiberflat": value,
        "ivar": np.full(value.shape, 1 / error**2 if error else 1e12),
        "mask": np.zeros(value.shape, np.uint32),
        "meanspec": np.ones(wave.size),
        "fibers": np.arange(len(value), dtype=np.int32),
    }
    return FiberFlat(**(fields | given))


def apply(qframe, flat, make_context):
    return ApplyFiberFlat_QP().run(qframe, make_context(calibration=Calibration("r3", 20260114, {"FIBERFLAT": flat})))


def test_flattened_counts_are_the_light_within_their_errors(spectrograph, qframe, make_context):
    error = 0.01
    flat = exact_flat(spectrograph, error)
    wrong = flat.fiberflat * (1 + error * spectrograph.rng.normal(size=(spectrograph.nspec, 1)))

    out = apply(qframe, replace(flat, fiberflat=wrong, ivar=1 / (error * flat.fiberflat) ** 2), make_context)

    pull = (out.flux - lamp(out.wave) * out.dwave) * np.sqrt(out.ivar)
    print(f"pull mean {pull.mean():+.3f} rms {pull.std():.3f}")
    assert (out.mask == 0).all()
    assert pull.std() == pytest.approx(1.0, abs=0.15)  # 60 independent flat errors


def test_where_the_flat_is_bad_the_flux_stays_and_the_mask_says_so(spectrograph, qframe, make_context):
    flat = exact_flat(spectrograph)
    flat.ivar[3, 700:720] = 0
    flat.mask[6] = SpecMask.LOWFLAT
    flat.fiberflat[8] = 0
    short = replace(flat, **{k: getattr(flat, k)[..., 100:] for k in ("wave", "fiberflat", "ivar", "mask", "meanspec")})

    out = apply(qframe, short, make_context)

    bad = out.mask == SpecMask.BADFIBERFLAT
    assert bad[[6, 8]].all()
    assert 8 <= bad[3].sum() - bad[2].sum() <= 20  # 20 bins of the flat's grid are 13 rows
    assert bad[qframe.wave < short.wave[0]].all()
    assert not bad[2][qframe.wave[2] > short.wave[0]].any()
    assert ((out.ivar == 0) == bad).all()
    np.testing.assert_array_equal(out.flux[bad], qframe.flux[bad])


def test_fibers_are_matched_by_number_whatever_their_order(spectrograph, qframe, make_context):
    flat = exact_flat(spectrograph)
    backwards = replace(
        flat, fibers=flat.fibers[:0:-1], fiberflat=flat.fiberflat[:0:-1], ivar=flat.ivar[:0:-1], mask=flat.mask[:0:-1]
    )

    out = apply(qframe, backwards, make_context)

    np.testing.assert_array_equal(out.flux[1:], apply(qframe, flat, make_context).flux[1:])
    assert (out.mask[0] == SpecMask.BADFIBERFLAT).all()  # fiber 0 is not in that flat


def test_the_input_is_left_unchanged(spectrograph, qframe, make_context):
    before = qframe.flux.copy(), qframe.ivar.copy(), qframe.mask.copy()

    ComputeFiberflat_QP().run(qframe, make_context(flavor="flat"))
    apply(qframe, exact_flat(spectrograph), make_context)

    for was, now in zip(before, (qframe.flux, qframe.ivar, qframe.mask), strict=True):
        np.testing.assert_array_equal(was, now)
