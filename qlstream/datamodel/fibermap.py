"""Which target each fiber looks at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qlstream.datamodel.masks import FiberMask, fatal_fiber_bits

_DESI_BITS = {"LRG": 0, "ELG": 1, "QSO": 2, "BGS": 60, "MWS": 61}
_STD_DESI_BITS = (33, 35)  # STD_FAINT, STD_BRIGHT
_STD_MWS_BITS = (33, 35)  # GAIA_STD_FAINT, GAIA_STD_BRIGHT
# CMX_TARGET has bits of its own: those of survey validation 0 and of the mini survey (spec masks-and-targets §7.1)
_CMX_BITS = {"LRG": (10, 53), "ELG": (11, 54), "QSO": (12, 55), "BGS": (8, 56), "MWS": (9,), "STAR": (1, 2, 33, 35)}
CLASSES = ("ELG", "LRG", "QSO", "BGS", "MWS", "STAR")  # fixed order of every per-class vector


@dataclass(frozen=True)
class Fibermap:
    """Rows of a FIBERMAP table, one per fiber (spec datamodel §4).

    Attributes
    ----------
    rows : structured array with at least FIBER; all other columns are optional and looked up by name
    meta : header cards of the table
    """

    rows: NDArray[Any]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows.dtype.names is None or "FIBER" not in self.rows.dtype.names:
            raise ValueError(
                f"a fibermap needs a FIBER column; this table has {self.rows.dtype.names}; "
                "give the FIBERMAP HDU of a fibermap file"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, column: str) -> bool:
        return column in (self.rows.dtype.names or ())

    def column(self, name: str, default: Any = None) -> NDArray[Any]:
        """A column in native byte order; `default` in every row if the table lacks it.

        Raises
        ------
        KeyError : no such column and no default
        """
        if name in self:
            values = np.asarray(self.rows[name])
            return values.astype(values.dtype.newbyteorder("="))
        if default is None:
            raise KeyError(f"the fibermap has no column {name}; it has {', '.join(self.rows.dtype.names or ())}")
        return np.full(len(self), default)

    @classmethod
    def of_lamps(cls, fibers: ArrayLike, nspec: int) -> Fibermap:
        """What is known of the fibers of a calibration exposure, which needs no file: they all look at the lamps.

        Parameters
        ----------
        fibers : FIBER numbers
        nspec : fibers of a spectrograph
        """
        numbers = np.asarray(fibers, dtype=np.int32)
        rows = np.zeros(
            len(numbers), dtype=[("FIBER", "i4"), ("PETAL_LOC", "i2"), ("FIBERSTATUS", "i4"), ("OBJTYPE", "U3")]
        )
        rows["FIBER"], rows["PETAL_LOC"], rows["OBJTYPE"] = numbers, numbers // nspec, "TGT"
        return cls(rows)

    @property
    def fiber(self) -> NDArray[np.int32]:
        return self.column("FIBER").astype(np.int32)

    def select(self, fibers: ArrayLike) -> Fibermap:
        """The rows of these FIBER numbers, in that order: by value, whatever the order of the table.

        Raises
        ------
        KeyError : a fiber is missing; the message names the first few
        """
        wanted = np.asarray(fibers, dtype=np.int64)
        numbers = self.fiber
        order = np.argsort(numbers, kind="stable")
        at = np.searchsorted(numbers, wanted, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        missing = wanted[numbers[at] != wanted]
        if missing.size:
            raise KeyError(
                f"the fibermap has no row for FIBER {missing[:5].tolist()}{' ...' if missing.size > 5 else ''} "
                f"({missing.size} of {wanted.size} missing; it holds {numbers.min()} to {numbers.max()})"
            )
        return Fibermap(self.rows[at], self.meta)

    def places(self, fibers: ArrayLike) -> NDArray[np.float64]:
        """(n, 2) place of these FIBER numbers in the focal plane [mm], nan where it is not known.

        Measured places (FIBER_X, FIBER_Y) count; where there is none, the wanted ones (FIBERASSIGN_X, FIBERASSIGN_Y).
        """
        row = {fiber: n for n, fiber in enumerate(self.fiber.tolist())}
        at = np.array([row.get(fiber, -1) for fiber in np.asarray(fibers).tolist()], dtype=np.int64)
        out = np.full((at.size, 2), np.nan)
        for x, y in (("FIBERASSIGN_X", "FIBERASSIGN_Y"), ("FIBER_X", "FIBER_Y")):
            if x in self and y in self:
                place = np.stack([self.column(x), self.column(y)], axis=1)[at].astype(np.float64)
                told = (
                    (at >= 0) & np.isfinite(place).all(axis=1) & (place != 0).any(axis=1)
                )  # (0, 0) says: not measured
                out[told] = place[told]
        return out

    @property
    def objtype(self) -> NDArray[np.str_]:
        """OBJTYPE of each row, stripped: TGT, SKY, NON or BAD."""
        text = self.column("OBJTYPE", "TGT")
        if text.dtype.kind == "S":
            text = np.char.decode(text, "ascii")
        return np.char.strip(text.astype(str))

    def with_columns(self, **columns: NDArray[Any]) -> Fibermap:
        """With these columns, (nspec,) each, in place of those of the same name, else behind the others."""
        kept = {name: self.rows[name] for name in self.rows.dtype.names or ()} | columns
        rows = np.zeros(len(self), dtype=[(name, values.dtype, values.shape[1:]) for name, values in kept.items()])
        for name, values in kept.items():
            rows[name] = values
        return replace(self, rows=rows)

    def flagged(self, bits: ArrayLike) -> Fibermap:
        """With these bits, (nspec,) int32, added to FIBERSTATUS; the column is made if there is none."""
        status = self.column("FIBERSTATUS", 0).astype(np.int32) | np.asarray(bits, dtype=np.int32)
        return self.with_columns(FIBERSTATUS=status)

    def is_usable(self, use: str, arm: str | None = None) -> NDArray[np.bool_]:
        """(nspec,) True where no FIBERSTATUS bit forbids `use` (see `fatal_fiber_bits`) in `arm`."""
        status = self.column("FIBERSTATUS", 0).astype(np.int64)
        return (status & int(fatal_fiber_bits(use, arm))) == 0

    def is_on_bad_amp(self, arm: str) -> NDArray[np.bool_]:
        """(nspec,) True where FIBERSTATUS says that the fiber runs over a bad amplifier in `arm`."""
        bit = int(FiberMask.__members__.get(f"BADAMP{arm.upper()}", 0))
        return (self.column("FIBERSTATUS", 0).astype(np.int64) & bit) != 0

    @property
    def is_sky(self) -> NDArray[np.bool_]:
        """(nspec,) True for sky fibers, whatever their status."""
        return self.objtype == "SKY"

    def is_class(self, name: str) -> NDArray[np.bool_]:
        """(nspec,) True for targets of class `name`, one of CLASSES; STAR means a standard star.

        Bits of the main survey and of survey validation count alike, since their numbers agree; commissioning has
        its own.

        Raises
        ------
        ValueError : unknown class
        """
        if name not in CLASSES:
            raise ValueError(f"unknown target class {name!r}; known are {', '.join(CLASSES)}")
        found = _any_bit(self._targets("DESI_TARGET"), _STD_DESI_BITS if name == "STAR" else (_DESI_BITS[name],))
        if name == "STAR":
            found |= _any_bit(self._targets("MWS_TARGET"), _STD_MWS_BITS)
        if "CMX_TARGET" in self:
            found |= _any_bit(self.column("CMX_TARGET").astype(np.int64), _CMX_BITS[name])
        return (self.objtype == "TGT") & found

    def _targets(self, column: str) -> NDArray[np.int64]:
        """The bits of the column and of those of survey validation; files of the latter have an empty main one."""
        bits = np.zeros(len(self), dtype=np.int64)
        for name in (column, *(f"SV{i}_{column}" for i in (1, 2, 3))):
            if name in self:
                bits |= self.column(name).astype(np.int64)
        return bits


def _any_bit(values: NDArray[np.int64], bits: Iterable[int]) -> NDArray[np.bool_]:
    wanted = np.int64(sum(1 << bit for bit in bits))
    return (values & wanted) != 0
