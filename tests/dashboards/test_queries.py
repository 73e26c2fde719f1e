"""What the pages read from the store."""

from __future__ import annotations

from dashboards.arrays import read_fibers, read_preview, read_spectra
from dashboards.queries import read_details, read_events, read_exposures
from dashboards.status import Status


def test_a_night_comes_with_its_troubles(night, synthetic):
    exposures = read_exposures(night, synthetic.NIGHT)

    assert sorted(set(range(1001, 1012)) - set(exposures)) == [1007]
    assert exposures[1004].status is Status.ALARM  # lamp off
    assert exposures[1008].cameras["r1"].status is Status.MISSING
    assert exposures[1009].status is Status.FAILED
    assert exposures[1009].reason.startswith("gave up")
    failed = exposures[1010].cameras["b1"]
    assert failed.status is Status.FAILED
    assert "GAINA" in failed.reason
    states = {c.state for c in exposures[1011].cameras.values()}
    assert {"done", "running", "ready"} <= states
    assert any(c.stage for c in exposures[1011].cameras.values() if c.state == "running")


def test_cameras_are_ordered_arm_by_arm(night, synthetic):
    (exposure,) = read_exposures(night, synthetic.NIGHT, [1005]).values()

    assert list(exposure.cameras) == ["b0", "b1", "r0", "r1", "z0", "z1"]


def test_details_of_one_camera_equal_those_of_all(night, synthetic):
    every = read_details(night, synthetic.NIGHT, 1006)

    one = read_details(night, synthetic.NIGHT, 1006, ["r0"])

    assert one["r0"] == every["r0"]
    assert [s["stage"] for s in one["r0"].stages] == list(synthetic.STAGES)
    assert set(one["r0"].products) == {"preview", "spectra"}


def test_events_of_a_camera_come_with_those_of_its_exposure(night, synthetic):
    events = read_events(night, synthetic.NIGHT, 1006, "r0")

    assert {e.camera for e in events} == {"r0", None}
    assert [e.id for e in events] == sorted((e.id for e in events), reverse=True)


def test_fibers_of_an_arm_stand_side_by_side_under_their_numbers(night, synthetic):
    details = read_details(night, synthetic.NIGHT, 1006)

    table = read_fibers(night.redux, details, ["r0", "r1"])

    assert table.fiber.tolist() == list(range(80))  # 40 fibers of the mini instrument each
    assert set(table.camera) == {"r0", "r1"}
    assert {"MEDIAN_SNR", "MAGNITUDE", "CLASS", "XSIGMA_FIB", "WSIGMA_FIB"} <= table.values.keys()
    assert table.units["XSIGMA_FIB"] == "pixel"


def test_previews_are_read_and_a_broken_or_absent_one_is_none(night, synthetic, tmp_path):
    products = read_details(night, synthetic.NIGHT, 1006, ["r0"])["r0"].products
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 cut")

    preview = read_preview(night.redux / products["preview"])
    spectra = read_spectra(night.redux / products["spectra"])

    assert preview is not None
    assert list(preview.amps) == list("ABCD")
    assert preview.image.shape[1] * 4 == preview.nx
    assert spectra is not None
    assert spectra.flux.shape == spectra.wave.shape == spectra.ivar.shape
    assert read_preview(broken) is None
    assert read_spectra(tmp_path / "absent.npz") is None
