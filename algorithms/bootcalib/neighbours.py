"""From the one fiber whose lines are known to all others: what is near where the neighbour had it is the same line."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

Array = NDArray[np.float64]

_REACH = 4.0  # how far a neighbour's lines may lie [pixel]
_STEP = 0.25  # of the search [pixel]
_NEAR = 0.8  # lines that lie closer to the prediction are taken [pixel]
_PRIOR = (1.0, 0.4, 0.15)  # constant, slope and bend that a fiber adds to its neighbour's rows [pixel]
_ERROR = 0.15  # of a line that may be a blend [pixel]
_FEWEST = 3  # lines by which a fiber is recognised


def follow_lines(
    detected: NDArray[np.void], reference: int, row: Array, wave: Array, lit: NDArray[np.bool_], reach: float = _REACH
) -> tuple[Array, Array]:
    """Rows of the identified lines in every fiber.

    From fiber to fiber the rows of all lines move together, by a constant and a little slope and bend. The search for
    the constant starts from the trend of the fibers before.

    Parameters
    ----------
    detected : `arclines.DETECTED`, by fiber
    reference : the fiber in which the lines are known
    row, wave : (nline,) there [pixel], [Angstrom], increasing
    lit : (nspec,) fibers to visit
    reach : how far a neighbour's lines may lie from the trend [pixel]

    Returns
    -------
    rows, error : (nspec, nline) [pixel]; error is infinite where the line was not found
    """
    nspec = len(lit)
    bounds = np.searchsorted(detected["fiber"], np.arange(nspec + 1))
    found, error = np.zeros((nspec, len(wave))), np.full((nspec, len(wave)), np.inf)
    basis = legendre.legvander(np.interp(wave, [wave[0], wave[-1]], [-1.0, 1.0]), len(_PRIOR) - 1)
    for path in (range(reference, nspec), range(reference - 1, -1, -1)):
        rows, trend = row.copy(), 0.0
        for fiber in path:
            if not lit[fiber]:
                rows = rows + trend
                continue
            mine = detected[bounds[fiber] : bounds[fiber + 1]]
            expected = rows + trend
            offset = _best_offset(mine, expected, reach)
            match, near = _nearest(mine, expected + offset)
            if near.sum() < _FEWEST:
                rows = expected
                continue
            found[fiber, near], error[fiber, near] = mine["y"][match[near]], mine["error"][match[near]]
            weight = np.where(near, 1.0 / np.hypot(error[fiber], _ERROR) ** 2, 0.0)
            left = np.where(near, found[fiber] - expected - offset, 0.0)
            normal = basis.T @ (weight[:, None] * basis) + np.diag(np.array(_PRIOR) ** -2)
            new = expected + offset + basis @ np.linalg.solve(normal, basis.T @ (weight * left))
            trend = 0.7 * trend + 0.3 * float(np.clip(np.median(new - rows), -reach, reach))
            rows = new
    return found, error


def _best_offset(mine: NDArray[np.void], expected: Array, reach: float) -> float:
    """The shift within +-reach that brings most lines to where they are expected."""
    if not len(mine):
        return 0.0
    trial = np.arange(-reach, reach + 0.5 * _STEP, _STEP)
    distance = np.abs(mine["y"][None, :, None] - expected - trial[:, None, None])
    score = np.maximum(1.0 - distance.min(axis=1) / _NEAR, 0.0).sum(axis=1) - 0.02 * np.abs(trial)
    return float(trial[score.argmax()])


def _nearest(mine: NDArray[np.void], expected: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(nline,) the detected line nearest to each expected row, and whether it is near enough."""
    if not len(mine):
        return np.zeros(len(expected), np.int64), np.zeros(len(expected), np.bool_)
    distance = np.abs(mine["y"][:, None] - expected)
    match = distance.argmin(axis=0)
    return match, distance[match, np.arange(len(expected))] < _NEAR
