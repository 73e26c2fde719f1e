"""Each fault of the detector raises its alarm on the right amplifiers, and nowhere else."""

import pytest

KINDS = ("zero", "dark", "arc", "flat", "science-dark")


def findings(results, least=30):
    return {(c.metric, c.element) for result in results.values() for c in result.checks if c.severity >= least}


@pytest.mark.parametrize("camera", ["b0", "r0", "z0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_camera_is_normal(look_at, kind, camera):
    results = look_at(kind, camera)

    assert findings(results, least=10) == set()
    assert results["Check_HDUs"].metrics["CHECKHDUS"] == 0


FAULTS = [
    ("noisy-amp:r0:B", "dark", {("NOISE_AMP", "B")}),
    ("noisy-amp:r0:C", "science-dark", {("NOISE_AMP", "C")}),
    ("dead-amp:r0:D", "flat", {("LITFRAC_AMP", "D"), ("LITRATIO_AMP", "D")}),
    ("dead-amp:r0:A", "arc", {("LITFRAC_AMP", "A")}),
    ("bias-jump:r0:C", "zero", {("BIAS_STEP_AMP", "C"), ("BIAS_DRIFT_AMP", "C"), ("BIAS_PATNOISE", "C")}),
    ("pickup:r0:B", "dark", {("BIAS_STEP_AMP", "B"), ("BIAS_PATNOISE", "B")}),
    ("no-readout:r0", "science-dark", {("FLATPIXELS", "")}),
    ("warm-ccd:r0", "zero", {("CCDTEMP", "")}),
    ("warm-ccd:r0", "flat", {("CCDTEMP", "")}),
    ("warm-ccd:r0", "dark", {("CCDTEMP", ""), *(("DARKLEVEL_AMP", a) for a in "ABCD")}),
    ("warm-ccd:b0", "dark", {("DARKLEVEL_AMP", a) for a in "ABCD"}),  # its header tells no temperature
    ("light-leak:b0", "dark", {("DARKLEVEL_AMP", a) for a in "ABCD"}),
    ("cosmic-storm:b0", "dark", {("COSMICS_RATE", a) for a in "ABCD"}),
]


@pytest.mark.parametrize(("fault", "kind", "expected"), FAULTS, ids=[f"{f}-{k}" for f, k, _ in FAULTS])
def test_a_fault_alarms_where_it_is(look_at, fault, kind, expected):
    camera, _, amp = fault.partition(":")[2].partition(":")

    found = findings(look_at(kind, camera, fault))

    assert expected <= found
    if amp:
        assert {element for _, element in found} <= {amp}
    assert findings(look_at(kind, "z0", fault)) == set()


def test_pickup_correlates_the_pixels_of_bias_frames(look_at):
    assert ("CORR_MAX_AMP", "A") in findings(look_at("zero", "r0", "pickup:r0:A"), least=20)
