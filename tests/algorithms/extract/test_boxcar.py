from dataclasses import replace

import numpy as np
import pytest

from algorithms.extract.boxcar import Extract_QP
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import ELECTRON
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre


def within(traces, wavemin, wavemax):
    """The same traces on a narrower domain."""
    u = np.linspace(-1, 1, 50)
    wave = wavemin + 0.5 * (u + 1) * (wavemax - wavemin)
    series = [
        legendre.fit(u, values(wave), 6)
        for values in (traces.x_vs_wave, traces.y_vs_wave, traces.xsig_vs_wave, traces.ysig_vs_wave)
    ]
    return XYTraceSet(series[0], series[1], wavemin, wavemax, traces.npix_y, series[2], series[3])


def test_spectra_come_on_their_native_rows_with_everything_that_later_stages_need(expose, make_context):
    exposed = expose(1000.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1", meta={"EXPID": 82}, traces=exposed.traces)

    qframe = Extract_QP().run(image, make_context(camera="r1"))

    assert qframe.flux.shape == (40, 500)
    np.testing.assert_allclose(exposed.traces.y_vs_wave(qframe.wave), np.tile(np.arange(500.0), (40, 1)), atol=1e-6)
    np.testing.assert_array_equal(qframe.fibers, 40 + np.arange(40))
    np.testing.assert_allclose(qframe.ysigma, exposed.traces.ysig_vs_wave(qframe.wave), rtol=1e-5)
    assert np.median(qframe.flux) == pytest.approx(1000.0, rel=0.01)  # nearly all light lies within 3.5 pixels
    assert qframe.bunit == ELECTRON
    cards = {key: qframe.meta[key] for key in ("EXPID", "NSPEC", "HALFWID", "CAMERA")}
    assert cards == {"EXPID": 82, "NSPEC": 40, "HALFWID": 3.5, "CAMERA": "r1"}


def test_rows_outside_the_trace_domain_hold_no_invented_spectrum(expose, make_context):
    exposed = expose(1000.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1")
    shorter = within(exposed.traces, 5700.0, 7600.0)
    context = make_context(camera="r1", calibration=Calibration("r1", 20260114, {"TRACES": shorter}))

    qframe = Extract_QP().run(image, context)

    outside = (qframe.wave < 5700.0) | (qframe.wave > 7600.0)
    assert outside.any()
    assert (qframe.ivar[outside] == 0).all()
    assert (qframe.mask[outside] == int(SpecMask.NODATA)).all()
    assert (qframe.ivar[~outside] > 0).all()
    assert (np.diff(qframe.wave, axis=1) > 0).all()


@pytest.mark.parametrize(("params", "half_width"), [({"half_width": 2.5}, 2.5), ({"FullWidth": 9}, 4.5), ({}, 3.5)])
def test_the_window_is_set_by_half_or_full_width_or_by_the_instrument(expose, make_context, params, half_width):
    exposed = expose(1000.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1", traces=exposed.traces)

    assert Extract_QP(params).run(image, make_context(camera="r1")).meta["HALFWID"] == half_width


def test_traces_are_needed_and_must_be_of_this_instrument(expose, make_context):
    exposed = expose(1.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1")

    with pytest.raises(MissingCalibration, match="no PSF for r1"):
        Extract_QP().run(image, make_context(camera="r1", calibration=Calibration("r1", 20260114, {})))
    few = replace(image, traces=exposed.traces.select(slice(0, 3)))
    with pytest.raises(ValueError, match="3 traces for 40 fibers of mini"):
        Extract_QP().run(few, make_context(camera="r1"))
