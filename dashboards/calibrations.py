"""Which calibration served which cameras, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.queries import camera_order
from dashboards.records import Detail
from dashboards.status import Status

# What the kinds are called; those that change through a night come first
_KINDS = {
    "TRACES": "traces", "FIBERFLAT": "fiber flat", "FLUXCALIB": "flux calibration", "BIAS": "bias", "DARK": "dark",
    "PIXFLAT": "pixel flat", "MASK": "bad pixels", "PSF": "spot shapes",
}  # fmt: skip
_ORIGINS = {
    "tonight": "made tonight",
    "chosen": "chosen by hand",
    "night": "nightly calibration",
    "tree": "calibration tree",
    "expired": "calibration tree, expired",
    "series": "series of darks",
}
_EXPOSURE = re.compile(r"exposures/(\d{8})/(\d{8})/[^/]*$")
_UNIX_EPOCH_MJD = 40587.0


@dataclass(frozen=True)
class Served:
    """One calibration as it served some cameras of an exposure.

    Attributes
    ----------
    kind : as the pipeline calls it
    what : in words
    origin : where it came from, in words
    night, expid : the exposure it was made from, if it was one
    utc : when that began [s since 1970]
    status : WARNING if it is past its time
    cameras : that it served, arm by arm
    paths : of its files, one per camera
    """

    kind: str
    what: str
    origin: str
    night: int | None
    expid: int | None
    utc: float | None
    status: Status
    cameras: tuple[str, ...]
    paths: tuple[str, ...]


def served_by(details: Mapping[str, Detail]) -> list[Served]:
    """The calibrations of an exposure; cameras are joined where kind, origin and source exposure agree."""
    groups: dict[tuple[str, str, int | None, int | None], list[tuple[str, str, float | None]]] = {}
    for camera in sorted(details, key=camera_order):
        for row in details[camera].calibrations:
            made = _EXPOSURE.search(row["path"])
            night, expid = (int(made[1]), int(made[2])) if made else (None, None)
            groups.setdefault((row["kind"], row["origin"], night, expid), []).append((camera, row["path"], row["mjd"]))
    found = []
    for (kind, origin, night, expid), rows in groups.items():
        mjd = max((m for _, _, m in rows if m is not None), default=None)
        found.append(
            Served(
                kind=kind,
                what=_KINDS.get(kind, kind.lower()),
                origin=_ORIGINS.get(origin, origin),
                night=night,
                expid=expid,
                utc=None if mjd is None else (mjd - _UNIX_EPOCH_MJD) * 86400.0,
                status=Status.WARNING if origin == "expired" else Status.NORMAL,
                cameras=tuple(camera for camera, _, _ in rows),
                paths=tuple(path for _, path, _ in rows),
            )
        )
    order = list(_KINDS)
    return sorted(found, key=lambda s: (order.index(s.kind) if s.kind in order else len(order), s.kind, s.expid or -1))
