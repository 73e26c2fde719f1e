"""Which rows of a table belong to which target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The rows of each target, as slices of one list.

    Attributes
    ----------
    targets : (ntarget,) TARGETIDs, in the order of their first appearance
    group : (nrow,) number of the target of each row
    order : (nrow,) rows by target, those of one in their order
    start : (ntarget + 1,) where in `order` those of a target begin
    """

    targets: Indices
    group: Indices
    order: Indices
    start: Indices

    @classmethod
    def of(cls, targetids: NDArray[np.integer]) -> Rows:
        """Of a column of TARGETIDs."""
        ids, first, inverse = np.unique(targetids, return_index=True, return_inverse=True)
        rank = np.empty(len(ids), dtype=np.int64)
        appearance = np.argsort(first)
        rank[appearance] = np.arange(len(ids))
        group = rank[inverse]
        start = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(ids)))])
        return cls(ids[appearance].astype(np.int64), group, np.argsort(group, kind="stable"), start.astype(np.int64))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, target: int) -> Indices:
        """The rows of a target, by its number."""
        return self.order[self.start[target] : self.start[target + 1]]

    def __iter__(self) -> Iterator[Indices]:
        return (self[t] for t in range(len(self)))

    def or_all(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(nrow,) the chosen rows, and all rows of targets that have none chosen."""
        some = np.bincount(self.group[chosen], minlength=len(self)) > 0
        return np.asarray(chosen | ~some[self.group])

    @property
    def first(self) -> Indices:
        """(ntarget,) the first row of each target."""
        return self.order[self.start[:-1]]
