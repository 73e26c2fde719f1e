"""Finding the values that a panel names in the results of a camera."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.engine.qafiles import outputs

_NAME = re.compile(r"^\s*([^\[\]\s]+)\s*((?:\[\s*[^\[\]]+?\s*\])*)\s*$")
_INDEX = re.compile(r"\[\s*([^\[\]]+?)\s*\]")
_RENAMED = {"SKYFIBERID": "SKY_FIBERID"}  # QuickLook's metrics each had a copy of the fiber numbers


class NoSuchValue(LookupError):
    """No result of the camera has a value of this name, or it has no such element."""


@dataclass(frozen=True)
class Series:
    """Values by one name.

    Attributes
    ----------
    name, unit : for labels
    values : float array of 1 or 2 dimensions; NaN where there is none
    labels : amplifiers, classes ... that the values belong to; empty for fibers and other vectors
    checks : verdicts on these values, as in the merged QA
    """

    name: str
    values: NDArray[np.float64]
    unit: str = ""
    labels: tuple[str, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def label(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def check_of(self, position: int) -> Mapping[str, Any] | None:
        """The verdict on one of the values."""
        element = self.labels[position] if self.labels else ""
        return next((c for c in self.checks if c["element"] == element), None)


class Results:
    """One metric of a camera, among its other results.

    Parameters
    ----------
    result : as in STAGES of the merged QA
    merged : the merged QA
    """

    def __init__(self, result: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
        self.result = result
        self._merged = merged

    def __contains__(self, expression: str) -> bool:
        """Whether this very metric has the value."""
        name = _split(expression)[0]
        parts = outputs().pairs.get(name, ())
        return any(_has(group, key) for key in (name, *parts) for group in _groups(self.result))

    @property
    def scalars(self) -> list[str]:
        return list(self.result["metrics"])

    def has_numbers(self, name: str) -> bool:
        """Whether a value that is there holds any finite number."""
        return bool(np.isfinite(self.find(name).values).any())

    def find(self, expression: str, single: bool = False) -> Series:
        """The values that `NAME` or `NAME[INDEX]` means: of this metric, else of the exposure, else of another metric.

        An index is a number from 0, or the name of an amplifier or class. FIBER counts the fibers of the CCD from 0.
        Where a vector and its median have one name, the vector is meant, or the median if `single`.

        Raises
        ------
        NoSuchValue : there are none
        """
        name, indices = _split(expression)
        found = _of_result(self.result, name, single) or self._of_exposure(name) or self._of_others(name)
        if found is None:
            raise NoSuchValue(f"{name}: no such value in {self.result['name']}, nor elsewhere of this camera")
        for index in indices:
            found = _element(found, index)
        return found

    def of_fibers(self, series: Series, numbers: Series) -> Series:
        """The values of some fibers, if `series` has one for each fiber and `numbers` are FIBER of some of them.

        QuickLook listed the sky fibers' values only, and their numbers; here a vector has a place for every fiber.
        """
        all_fibers = self._merged.get("GENERAL_INFO", {}).get("FIBERID") or []
        if not numbers.name.endswith("FIBERID") or not len(numbers.values) < len(series.values) == len(all_fibers):
            return series
        place = {float(fiber): i for i, fiber in enumerate(all_fibers)}
        if not all(number in place for number in numbers.values):
            return series
        return replace(series, values=series.values[[place[number] for number in numbers.values]])

    def _of_exposure(self, name: str) -> Series | None:
        info = self._merged.get("GENERAL_INFO", {})
        if name == "FIBER":
            return Series("fiber on the CCD", np.arange(self._nfibers(), dtype=float))
        value = info.get(_RENAMED.get(name, name))
        return Series(name, _floats(value)) if isinstance(value, list) and value else None

    def _of_others(self, name: str) -> Series | None:
        for stage in self._merged.get("STAGES", {}).values():
            for other in stage["QA"].values():
                if other is not self.result and (found := _of_result(other, name)) is not None:
                    return found
        return None

    def _nfibers(self) -> int:
        lengths = [len(v) for v in self.result["per_fiber"].values()]
        return max(lengths, default=len(self._merged.get("GENERAL_INFO", {}).get("FIBERID") or ()))


def _groups(result: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple(result.get(group) or {} for group in ("metrics", "per_amp", "per_class", "per_fiber", "vectors"))


def _has(group: Mapping[str, Any], key: str) -> bool:
    """Whether there is something to draw: a number, or a vector that is not empty."""
    value = group.get(key)
    return bool(value) if isinstance(value, (Mapping, list)) else key in group


def _of_result(result: Mapping[str, Any], name: str, single: bool = False) -> Series | None:
    metrics, per_amp, per_class, per_fiber, vectors = _groups(result)
    checks = tuple(c for c in result["checks"] if c["metric"] == name)
    unit = result["units"].get(name, "")
    if name in metrics and (single or not any(name in group for group in (per_amp, per_class, per_fiber, vectors))):
        return Series(name, _floats([metrics[name]]), unit, ("",), checks)
    for table in (per_amp, per_class):
        if name in table:
            return Series(name, _floats(list(table[name].values())), unit, tuple(table[name]), checks)
    pair = outputs().pairs.get(name, ())
    parts = [found for part in pair if (found := _of_result(result, part)) is not None]
    if parts and (len(parts) == len(pair) or name not in vectors):  # they know their units and verdicts
        return _joined(name, parts)
    for table in (per_fiber, vectors):
        if name in table:
            return Series(name, _floats(table[name]), unit, (), checks)
    return None


def _joined(name: str, parts: list[Series]) -> Series:
    """Two keys under one name: single values become one vector, vectors the rows of a matrix."""
    if all(part.labels == ("",) for part in parts):
        checks = tuple({**c, "element": part.name} for part in parts for c in part.checks)
        values = np.concatenate([part.values for part in parts])
        return Series(name, values, parts[0].unit, tuple(part.name for part in parts), checks)
    if len({part.values.shape for part in parts}) > 1:
        raise NoSuchValue(
            f"{name}: {' and '.join(part.name for part in parts)} have different lengths; name one of them"
        )
    return _Pair(name, np.stack([part.values for part in parts]), parts[0].unit, parts[0].labels, (), tuple(parts))


@dataclass(frozen=True)
class _Pair(Series):
    """A matrix that keeps what its rows are."""

    rows: tuple[Series, ...] = ()


def _element(series: Series, index: str) -> Series:
    name = f"{series.name}[{index}]"
    if isinstance(series, _Pair) and index.isdigit() and int(index) < len(series.rows):
        return series.rows[int(index)]
    if index in series.labels and series.values.ndim == 1:
        at = series.labels.index(index)
    elif re.fullmatch(r"-?\d+", index) and -len(series.values) <= int(index) < len(series.values):
        at = int(index) % len(series.values)
    else:
        known = f" ({', '.join(series.labels)})" if any(series.labels) else ""
        raise NoSuchValue(f"{name}: {series.name} has {len(series.values)} elements{known}")
    if series.values.ndim > 1:
        return replace(series, name=name, values=series.values[at], checks=())
    labels = (series.labels[at],) if series.labels else ()
    return replace(series, name=name, values=series.values[at : at + 1], labels=labels)


def _split(expression: str) -> tuple[str, list[str]]:
    match = _NAME.match(expression)
    if match is None:
        raise NoSuchValue(f"{expression!r} is no name of a value; write NAME or NAME[INDEX]")
    return match[1], _INDEX.findall(match[2])


def _floats(values: Any) -> NDArray[np.float64]:
    """Numbers as an array, whatever cannot be one as NaN."""
    try:
        return np.asarray([np.nan if v is None else v for v in values], dtype=float)
    except (TypeError, ValueError):
        pass
    try:
        return np.asarray([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    except (TypeError, ValueError):
        return np.full(len(values), np.nan)
