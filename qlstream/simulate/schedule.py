"""What is observed in a simulated night, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from qlstream.simulate.lamps import ARC_EXPTIME, FLAT_EXPTIME
from qlstream.simulate.seeds import generator

KINDS = ("zero", "dark", "arc", "flat", "science-dark", "science-gray", "science-bright")
DEFAULT_NIGHT = (
    "zero", "zero", "dark", "arc", "arc", "flat", "flat", "flat",
    "science-dark", "science-dark", "science-bright", "science-dark",
)  # fmt: skip
CLEAR = 0.98  # transparency of a cloudless sky
READOUT = 60.0  # from the shutter's closing to the next exposure [second]
_EXPTIME = {
    "zero": 0.0,
    "dark": 300.0,
    "arc": ARC_EXPTIME,
    "flat": FLAT_EXPTIME,
    "science-dark": 900.0,
    "science-gray": 900.0,
    "science-bright": 300.0,
}
_MOONLIGHT = {"science-dark": (0.0, 0.1), "science-gray": (0.6, 1.2), "science-bright": (2.5, 5.0)}
_MOONSEP = {"science-dark": (80.0, 120.0), "science-gray": (60.0, 90.0), "science-bright": (50.0, 80.0)}
_TILES = {"science-dark": 0, "science-gray": 10000, "science-bright": 20000}
_UNIX_EPOCH_MJD = 40587.0


@dataclass(frozen=True)
class Exposure:
    """One exposure as it was planned and as the sky was.

    Attributes
    ----------
    kind : one of KINDS
    mjd : start, UTC
    exptime : that the shutter was open [second]
    reqtime : that was asked for [second]; as long as exptime if None
    transparency : fraction of starlight that the clouds let through; CLEAR if there are none
    seeing : FWHM [arcsec]
    moonlight : scattered moonlight in units of the dark sky's continuum at 5500 Angstrom
    moonsep : distance of the moon [degree]
    """

    kind: str
    night: int = 20260115
    expid: int = 1
    mjd: float = 61056.2
    exptime: float = 900.0
    tileid: int = 0
    tilera: float = 150.0
    tiledec: float = 10.0
    airmass: float = 1.1
    seeing: float = 1.1
    moonlight: float = 0.0
    moonsep: float = 90.0
    sequence: tuple[int, int] = (1, 1)
    reqtime: float | None = None
    transparency: float = CLEAR

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of exposure {self.kind!r}; known are {', '.join(KINDS)}")

    @property
    def flavor(self) -> str:
        """zero, dark, arc, flat or science."""
        return self.kind.split("-")[0]

    @property
    def date_obs(self) -> datetime:
        """Start, UTC."""
        return datetime.fromtimestamp(0, UTC) + timedelta(days=self.mjd - _UNIX_EPOCH_MJD)


def plan_night(
    night: int, seed: int, kinds: Sequence[str] = DEFAULT_NIGHT, first_expid: int = 1
) -> tuple[Exposure, ...]:
    """A night of exposures of these kinds, in this order, with the times a telescope needs.

    Calibrations begin in the afternoon at 15 h local time (22 h UT), science waits for the dark at 19 h local time.
    Successive science exposures of one program stay on their tile for two exposures.

    Raises
    ------
    ValueError : an unknown kind, or a night that is no date
    """
    try:
        midday = datetime.strptime(str(night), "%Y%m%d").replace(tzinfo=UTC) + timedelta(hours=19)
    except ValueError:
        raise ValueError(f"night {night} is no date; write it as YYYYMMDD, for example 20260115") from None
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"unknown kind of exposure {', '.join(unknown)}; known are {', '.join(KINDS)}")

    clock = midday + timedelta(hours=3)
    dusk = midday + timedelta(hours=7)
    plan: list[Exposure] = []
    for i, kind in enumerate(kinds):
        if kind.startswith("science"):
            clock = max(clock, dusk)
        exposure = Exposure(kind, night, first_expid + i, _mjd(clock), _EXPTIME[kind])
        exposure = replace(exposure, sequence=_place_in_run(kinds, i))
        if exposure.flavor == "science":
            exposure = _point(exposure, plan, seed)
        plan.append(exposure)
        clock += timedelta(seconds=exposure.exptime + READOUT)
    return tuple(plan)


def _point(exposure: Exposure, earlier: Sequence[Exposure], seed: int) -> Exposure:
    """Seeing, airmass, moon, and a tile: the one before if that was of the same program and observed only once."""
    rng = generator(seed, exposure.night, exposure.expid, "conditions")
    last = earlier[-1] if earlier else None
    again = last is not None and last.kind == exposure.kind and sum(e.tileid == last.tileid for e in earlier) < 2
    tile = last if again and last is not None else None
    return replace(
        exposure,
        exptime=round(exposure.exptime * rng.uniform(0.97, 1.03), 4),
        tileid=tile.tileid if tile else _TILES[exposure.kind] + 1000 + exposure.expid,
        tilera=tile.tilera if tile else round(rng.uniform(100.0, 200.0), 3),
        tiledec=tile.tiledec if tile else round(rng.uniform(-5.0, 60.0), 3),
        airmass=round(rng.uniform(1.02, 1.35), 4),
        seeing=round(float(np.clip(rng.lognormal(np.log(1.05), 0.12), 0.75, 1.6)), 3),
        moonlight=round(rng.uniform(*_MOONLIGHT[exposure.kind]), 3),
        moonsep=round(rng.uniform(*_MOONSEP[exposure.kind]), 2),
    )


def _place_in_run(kinds: Sequence[str], i: int) -> tuple[int, int]:
    """(number, total) of exposure i in its run of equal kinds."""
    first, last = i, i
    while first > 0 and kinds[first - 1] == kinds[i]:
        first -= 1
    while last + 1 < len(kinds) and kinds[last + 1] == kinds[i]:
        last += 1
    return i - first + 1, last - first + 1


def _mjd(time: datetime) -> float:
    return _UNIX_EPOCH_MJD + time.timestamp() / 86400.0
