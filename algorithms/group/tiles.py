"""Which exposures of a tile belong to one file of spectra (spec paths-and-names §2.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

TileGrouping = Literal["cumulative", "pernight", "perexp"]


class TileExposure(NamedTuple):
    """A science exposure."""

    tileid: int
    night: int
    expid: int


@dataclass(frozen=True)
class TileGroup:
    """Exposures of a tile that are taken together.

    Attributes
    ----------
    group : cumulative (all nights up to one), pernight, or perexp
    exposures : by night and number
    """

    tileid: int
    group: TileGrouping
    exposures: tuple[TileExposure, ...]

    @property
    def night(self) -> int:
        """The last one: it stands in names of cumulative files."""
        return self.exposures[-1].night

    @property
    def expid(self) -> int:
        """The last one: it stands in names of files of single exposures."""
        return self.exposures[-1].expid

    @property
    def where(self) -> dict[str, Any]:
        """What `findfile` needs beside the spectrograph."""
        by = {"expid": self.expid} if self.group == "perexp" else {"night": self.night}
        return {"tile": self.tileid, "groupname": self.group, **by}

    def cards(self) -> dict[str, Any]:
        """Header cards of files of this group (spec datamodel §8.1)."""
        return group_cards(self.group, self.night, self.expid) | {"TILEID": self.tileid}


def group_cards(group: str, night: int, expid: int) -> dict[str, Any]:
    """SPGRP, and SPGRPVAL: the number that tells the group from others of its tile."""
    return {"SPGRP": group, "SPGRPVAL": expid if group == "perexp" else night, "NIGHT": night}


def tile_groups(
    exposures: Iterable[TileExposure], group: TileGrouping = "cumulative", through: int | None = None
) -> list[TileGroup]:
    """The groups of these exposures, by tile and time. Exposures without a tile (TILEID not positive) are left out.

    Parameters
    ----------
    group : cumulative makes one group of a tile, of all its nights
    through : last night that counts; later ones are left out

    Raises
    ------
    ValueError : unknown group
    """
    if group not in ("cumulative", "pernight", "perexp"):
        raise ValueError(f"unknown group {group!r} of tiles; give cumulative, pernight or perexp")
    found: dict[tuple[int, ...], list[TileExposure]] = defaultdict(list)
    for exposure in sorted(set(exposures)):
        if exposure.tileid <= 0 or (through is not None and exposure.night > through):
            continue
        key = exposure[: {"cumulative": 1, "pernight": 2, "perexp": 3}[group]]
        found[key].append(exposure)
    return [TileGroup(key[0], group, tuple(members)) for key, members in found.items()]
