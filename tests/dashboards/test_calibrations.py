"""Calibrations in words."""

from __future__ import annotations

from dashboards.calibrations import served_by
from dashboards.records import Detail
from dashboards.render import render
from dashboards.status import Status

FLAT = "/redux/exposures/20260115/00000002/qfiberflat-{camera}-00000002.fits"
LATER = "/redux/exposures/20260115/00000007/qfiberflat-{camera}-00000007.fits"


def used(camera: str, kind: str, path: str, origin: str, mjd: float | None = None) -> dict[str, object]:
    return {"camera": camera, "kind": kind, "path": path.format(camera=camera), "origin": origin, "mjd": mjd}


def details(**cameras: list[dict[str, object]]) -> dict[str, Detail]:
    return {camera: Detail(calibrations=tuple(rows)) for camera, rows in cameras.items()}


def test_what_was_made_tonight_comes_first_with_its_exposure_and_time():
    served = served_by(
        details(
            r0=[
                used("r0", "BIAS", "calib/ccd/bias.fits.gz", "tree"),
                used("r0", "FIBERFLAT", FLAT, "tonight", 61055.75),
            ],
            b0=[
                used("b0", "BIAS", "calib/ccd/bias.fits.gz", "tree"),
                used("b0", "FIBERFLAT", FLAT, "tonight", 61055.75),
            ],
        )
    )

    assert [(s.what, s.origin, s.night, s.expid, s.cameras) for s in served] == [
        ("fiber flat", "made tonight", 20260115, 2, ("b0", "r0")),
        ("bias", "calibration tree", None, None, ("b0", "r0")),
    ]
    page = render("calibrations", served=served)
    assert '<a href="/exposure?night=20260115&amp;expid=2">exposure 2</a>, made tonight' in page
    assert "18:00 UTC" in page
    assert "qfiberflat-b0-00000002.fits" in page


def test_cameras_with_other_flats_stand_on_lines_of_their_own():
    served = served_by(
        details(
            r0=[used("r0", "FIBERFLAT", FLAT, "tonight", 61055.75)],
            r1=[used("r1", "FIBERFLAT", LATER, "tonight", 61055.76)],
        )
    )

    assert [(s.expid, s.cameras) for s in served] == [(2, ("r0",)), (7, ("r1",))]


def test_an_expired_calibration_is_marked_and_an_unknown_kind_shown_by_its_name():
    served = served_by(
        details(r0=[used("r0", "MASK", "calib/mask.fits", "expired"), used("r0", "SKYCORR", "calib/sky.fits", "lab")])
    )

    assert [(s.what, s.origin, s.status) for s in served] == [
        ("bad pixels", "calibration tree, expired", Status.WARNING),
        ("skycorr", "lab", Status.NORMAL),
    ]
    assert "sym-warning" in render("calibrations", served=served)
    assert "None so far" in render("calibrations", served=[])
