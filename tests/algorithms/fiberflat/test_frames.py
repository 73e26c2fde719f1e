"""The fiber flat of frames, made and applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.fiberflat.stage import ApplyFiberFlat, ApplyFiberFlat_QL, ComputeFiberflat, ComputeFiberflat_QL
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import FiberMask, SpecMask


def lamp(wave):
    """A continuum with a dichroic's edge, and absorption lines as narrow as a bin before the resolution."""
    spectrum = 18000 * (1 + 0.2 * np.sin(wave / 60)) / (1 + np.exp(-(wave - 5730) / 6))
    spectrum[200::150] *= 0.3
    return spectrum


@pytest.fixture
def frame(framing):
    return framing.observe(framing.seen(lamp(framing.wave)) * framing.throughput())


def true_flat(framing, live=slice(None)):
    throughput = framing.throughput()
    return throughput / np.median(throughput[live], axis=0)


@pytest.mark.parametrize("stage", [ComputeFiberflat_QL, ComputeFiberflat])
def test_the_flat_agrees_with_the_truth_within_its_own_errors(stage, framing, frame, make_context):
    flat = stage().run(frame, make_context(flavor="flat"))

    good = flat.mask == 0
    error = (flat.fiberflat - true_flat(framing))[good]
    pull = error * np.sqrt(flat.ivar[good])
    nmad = 1.4826 * np.median(np.abs(error))
    print(f"{stage.__name__}: nmad {100 * nmad:.3f} %, worst {100 * np.abs(error).max():.2f} %; "
          f"pull rms {pull.std():.2f}; chi2/dof {flat.chi2pdf:.4f}")  # fmt: skip
    assert good.mean() > 0.9
    assert nmad < 0.002  # bins have 0.8 % each
    assert np.abs(error).max() < 0.03
    assert 0.8 < pull.std() < 1.4  # the median of 60 fibers has a noise of its own
    assert flat.chi2pdf == pytest.approx(1.0, abs=5 * np.sqrt(2 / flat.fiberflat.size))


def test_narrow_lines_of_the_lamp_do_not_show_in_the_flat(framing, frame, make_context):
    flat = ComputeFiberflat({"smooth": False, "tolerance": 0.2}).run(frame, make_context(flavor="flat"))
    blurred = ComputeFiberflat({"smooth": False, "tolerance": 0.2}).run(
        replace(frame, resolution=np.repeat(frame.resolution[:1], framing.nspec, axis=0)), make_context(flavor="flat")
    )

    near = np.abs(np.arange(framing.nwave)[:, None] - np.arange(200, framing.nwave, 150)).min(axis=1) <= 1
    chi2 = [(((f.fiberflat - true_flat(framing)) ** 2 * f.ivar)[:, near]).mean() for f in (flat, blurred)]
    print(f"chi2/n of the flat in the lamp's lines: {chi2[0]:.3f}; {chi2[1]:.3f} with one resolution for all")
    n = framing.nspec * near.sum()
    assert chi2[0] == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.03)  # 1/60 of the noise is in the lamp as well
    assert chi2[1] > 1.15


def test_each_bins_own_ratio_has_the_noise_of_the_bin_and_no_bias(framing, frame, make_context):
    flat = ComputeFiberflat({"smooth": False}).run(frame, make_context(flavor="flat"))

    good = (flat.mask == 0) & (framing.wave > 5760)
    pull = ((flat.fiberflat - true_flat(framing)) * np.sqrt(flat.ivar))[good]
    print(f"pull mean {pull.mean():+.4f} rms {pull.std():.4f}")
    assert np.median(flat.fiberflat[:, (flat.mask == 0).all(axis=0)], axis=0) == pytest.approx(1.0, abs=1e-12)
    # the median of each wavelength stands on few fibers: their noise, 0.3 sigma, is common to all of that wavelength
    assert abs(pull.mean()) < 5 * 0.3 / np.sqrt(500)
    assert pull.std() == pytest.approx(1.04, abs=0.02)


def test_cosmic_rays_and_masked_bins_do_not_mark_the_flat(framing, frame, make_context):
    flux, ivar, mask = frame.flux.copy(), frame.ivar.copy(), frame.mask.copy()
    hit = framing.rng.uniform(size=flux.shape) < 1e-3
    flux[hit] += 30000
    flux[5, 300:330], ivar[5, 300:330] = np.nan, 0
    flux[7, 300:330], mask[7, 300:330] = 0, SpecMask.BADCOLUMN
    for stage in (ComputeFiberflat_QL, ComputeFiberflat):
        flat = stage().run(replace(frame, flux=flux, ivar=ivar, mask=mask), make_context(flavor="flat"))

        good = flat.mask == 0
        error = np.abs(flat.fiberflat - true_flat(framing))[good]
        print(f"{stage.__name__}: worst {100 * error.max():.2f} %")
        assert good[[5, 7], 300:330].all()  # bridged by their neighbours
        assert error.max() < 0.03


def test_dark_and_forbidden_fibers_are_masked_and_leave_the_others_alone(framing, make_context, make_fibermap):
    status = np.zeros(framing.nspec, np.int32)
    status[9] = FiberMask.BROKENFIBER
    framing.gray[4] = 0.0
    fibermap = make_fibermap(["SKY"] * framing.nspec, FIBERSTATUS=status)
    frame = framing.observe(framing.seen(lamp(framing.wave)) * framing.throughput(), fibermap=fibermap)

    flat = ComputeFiberflat_QL().run(frame, make_context(flavor="flat"))

    live = np.ones(framing.nspec, bool)
    live[[4, 9]] = False
    assert (flat.mask[~live] == SpecMask.BADFIBERFLAT).all()
    assert (flat.fiberflat[~live] == 1).all()
    assert np.abs(flat.fiberflat - true_flat(framing, live))[live & True][flat.mask[live] == 0].max() < 0.03


def test_a_flat_without_lamp_light_makes_no_fiber_flat(framing, make_context):
    dark = framing.observe(np.zeros((framing.nspec, framing.nwave)))

    for stage in (ComputeFiberflat_QL, ComputeFiberflat):
        with pytest.raises(MissingCalibration, match="no lamp light"):
            stage().run(dark, make_context(flavor="flat"))


def test_the_mean_spectrum_is_the_lamp_in_the_median_fiber(framing, frame, make_context):
    flat = ComputeFiberflat_QL().run(frame, make_context(flavor="flat"))

    expected = framing.seen(lamp(framing.wave)).mean(axis=0) * np.median(framing.throughput(), axis=0)
    inside = framing.wave > 5750  # below, beyond the dichroic's edge, 60 fibers do not make 1 %
    np.testing.assert_allclose(flat.meanspec[inside], expected[inside], rtol=0.01)


def exact_flat(framing, error=0.0):
    value = framing.throughput()
    return FiberFlat(
        wave=framing.wave,
        fiberflat=value,
        ivar=np.full(value.shape, 1 / error**2 if error else 1e12),
        mask=np.zeros(value.shape, np.uint32),
        meanspec=np.ones(framing.nwave),
        fibers=np.arange(len(value), dtype=np.int32),
    )


def apply(stage, frame, flat, make_context):
    return stage().run(frame, make_context(calibration=Calibration("r3", 20260114, {"FIBERFLAT": flat})))


@pytest.mark.parametrize("stage", [ApplyFiberFlat_QL, ApplyFiberFlat])
def test_flattened_flux_is_the_light_within_its_errors(stage, framing, frame, make_context):
    error = 0.01
    flat = exact_flat(framing, error)
    wrong = flat.fiberflat * (1 + error * framing.rng.normal(size=(framing.nspec, 1)))

    out = apply(stage, frame, replace(flat, fiberflat=wrong, ivar=1 / (error * flat.fiberflat) ** 2), make_context)

    pull = (out.flux - framing.seen(lamp(framing.wave))) * np.sqrt(out.ivar)
    print(f"pull mean {pull.mean():+.3f} rms {pull.std():.3f}")
    assert (out.mask == 0).all()
    assert out.flux.dtype == np.float64
    assert pull.std() == pytest.approx(1.0, abs=0.15)  # 60 independent flat errors


def test_the_error_of_the_flat_counts_with_the_flux_before_the_division(framing, frame, make_context):
    flat = exact_flat(framing, 0.02)

    out = apply(ApplyFiberFlat, frame, flat, make_context)

    f = flat.fiberflat
    expected = 1 / (1 / (frame.ivar * f**2) + frame.flux**2 / (flat.ivar * f**4))
    np.testing.assert_allclose(out.ivar, expected, rtol=1e-12)


@pytest.mark.parametrize("stage", [ApplyFiberFlat_QL, ApplyFiberFlat])
def test_exactly_the_bad_bins_of_the_flat_are_masked(stage, framing, frame, make_context):
    flat = exact_flat(framing)
    flat.ivar[3, 200:220] = 0
    flat.mask[6, 0] = SpecMask.LOWFLAT
    flat.fiberflat[8] = 0
    bad = np.zeros(frame.flux.shape, bool)
    bad[3, 200:220] = bad[6, 0] = bad[8] = True

    out = apply(stage, frame, flat, make_context)

    np.testing.assert_array_equal(out.mask == SpecMask.BADFIBERFLAT, bad)
    np.testing.assert_array_equal(out.ivar == 0, bad)
    np.testing.assert_array_equal(out.flux[bad], frame.flux[bad])


def test_the_quick_stage_interpolates_and_the_offline_stage_refuses_another_grid(framing, frame, make_context):
    flat = exact_flat(framing)
    wave = np.arange(framing.wave[0] - 3, framing.wave[-1] + 3, 2.3)
    other = replace(
        flat,
        wave=wave,
        meanspec=np.ones(wave.size),
        mask=np.zeros((framing.nspec, wave.size), np.uint32),
        ivar=np.full((framing.nspec, wave.size), 1e12),
        fiberflat=np.array([np.interp(wave, framing.wave, f) for f in flat.fiberflat]),
    )

    out = apply(ApplyFiberFlat_QL, frame, other, make_context)

    np.testing.assert_allclose(out.flux[:, 3:-3], (frame.flux / flat.fiberflat)[:, 3:-3], rtol=1e-4)
    with pytest.raises(ValueError, match=r"600 bins of 5700\.00-6179\.20 Angstrom, the fiber flat 211 bins of 5697"):
        apply(ApplyFiberFlat, frame, other, make_context)


def test_a_flat_of_other_fibers_is_refused(framing, frame, make_context):
    flat = replace(exact_flat(framing), fibers=np.arange(20, 20 + framing.nspec, dtype=np.int32))

    for stage in (ApplyFiberFlat_QL, ApplyFiberFlat):
        with pytest.raises(ValueError, match=r"lacks 20 of the frame's 60, e\.g\. \[0, 1, 2, 3, 4\]"):
            apply(stage, frame, flat, make_context)


@pytest.mark.parametrize("stage", [ApplyFiberFlat_QL, ApplyFiberFlat])
def test_the_flat_moves_with_the_wavelengths_of_a_barycentric_frame(stage, framing, frame, make_context):
    flat = exact_flat(framing)
    step = 1 + 0.2 * np.tanh((framing.wave - 5940) / 2)  # something to see a shift by
    flat = replace(flat, fiberflat=flat.fiberflat * step)
    factor = 1 + 25 / 299792.458  # half an Angstrom

    out = apply(stage, replace(frame, meta={**frame.meta, "HELIOCOR": factor}), flat, make_context)

    expected = np.array([np.interp(framing.wave / factor, framing.wave, f) for f in flat.fiberflat])
    np.testing.assert_allclose(out.flux, frame.flux / expected, rtol=1e-9)
    assert (out.mask == 0).all()


def test_the_input_is_left_unchanged(framing, frame, make_context):
    before = frame.flux.copy(), frame.ivar.copy(), frame.mask.copy()

    ComputeFiberflat_QL().run(frame, make_context(flavor="flat"))
    apply(ApplyFiberFlat, frame, exact_flat(framing), make_context)

    for was, now in zip(before, (frame.flux, frame.ivar, frame.mask), strict=True):
        np.testing.assert_array_equal(was, now)
