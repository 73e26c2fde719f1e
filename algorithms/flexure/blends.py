"""Which emission lines can be centroided at the resolution of the spectra, and with which neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MERGE = 1.8  # lines closer than this are one feature [sigma]
EXTENT = 2.5  # a feature may span this much [sigma]
APART = 2.2  # distance from which on the strength of a neighbour can be left free [sigma]
WINDOW = 5.5  # half size of the window about a feature [sigma]
FAINT = 0.05  # nearer neighbours are taken into the feature if they are fainter than this share of it
BRIGHTER = 10.0  # a feature is not taken if its neighbours are so many times brighter
WING_ERROR = 0.01  # of the light of a neighbour, by the shape of its wings
RATIO_ERROR = 0.1  # relative error of the strengths within a feature, for lines of one kind
OTHER_KIND_ERROR = 0.3  # and for lines of another atom or molecule than its strongest


@dataclass(frozen=True)
class Features:
    """Groups of unresolved lines, and the lines beside them that their windows also hold.

    Lines are indexed in order of wavelength; feature g owns lines first[g] to last[g] - 1, and left[g] to
    first[g] - 1 and last[g] to right[g] - 1 are its neighbours.

    Attributes
    ----------
    wave, strength : (nline,) all lines of the range [Angstrom], strength of the strongest is 1
    left, first, last, right : (ngroup,) int64 indices of lines
    center : (ngroup,) strength-weighted wavelength [Angstrom]
    blur : (ngroup,) error of the center by those of the strengths in it and of its neighbours' wings [Angstrom]
    """

    wave: Array
    strength: Array
    left: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    right: NDArray[np.int64]
    center: Array
    blur: Array

    def __len__(self) -> int:
        return len(self.first)

    def brightest(self, most: int) -> Features:
        """The `most` strongest features; the list of lines stays."""
        total = np.append(0.0, np.cumsum(self.strength))
        index = np.sort(np.argsort(total[self.first] - total[self.last])[:most])
        return Features(
            self.wave, self.strength, self.left[index], self.first[index], self.last[index], self.right[index],
            self.center[index], self.blur[index],
        )  # fmt: skip


def find_features(wave: Array, strength: Array, kind: NDArray[np.str_], sigma: Array, most: int) -> Features:
    """Features whose position can be told at this resolution, the `most` strongest.

    Lines closer than MERGE sigma make one feature with the strengths of the table. A feature is taken if it is
    compact and other lines are resolved from it, so that their strengths can be fitted freely: the ratios of sky lines
    of different bands and of the lines of different lamps vary.

    Parameters
    ----------
    wave : (nline,) increasing [Angstrom]
    strength : (nline,)
    kind : (nline,) atom or molecule
    sigma : (nline,) Gaussian width of a line at each wavelength [Angstrom]
    most : how many
    """
    apart = np.flatnonzero(np.diff(wave) > MERGE * sigma[1:]) + 1
    bounds = np.unique(np.concatenate([[0], apart, [len(wave)]]))
    found: list[tuple[int, int, int, int, float, float, float]] = []
    for first, last in pairwise(bounds.tolist()):
        width = sigma[first]
        own = strength[first:last].sum()
        near = slice(*np.searchsorted(wave, [wave[first] - APART * width, wave[last - 1] + APART * width]))
        if wave[last - 1] - wave[first] > EXTENT * width or strength[near].sum() > (1.0 + FAINT) * own:
            continue
        share = strength[near] / strength[near].sum()
        center = float(share @ wave[near])
        ratio_error = np.where(kind[near] == kind[near][share.argmax()], RATIO_ERROR, OTHER_KIND_ERROR)
        blur = float(np.sqrt(np.sum((ratio_error * share * (wave[near] - center)) ** 2)))
        window = slice(*np.searchsorted(wave, [center - WINDOW * width, center + WINDOW * width]))
        beside = (strength[window].sum() - strength[near].sum()) / own
        if beside > BRIGHTER:
            continue
        blur = float(np.hypot(blur, WING_ERROR * beside * width))
        left, right = np.searchsorted(wave, [center - (WINDOW + 3.0) * width, center + (WINDOW + 3.0) * width])
        found.append((left, near.start, near.stop, right, center, blur, own))
    found = sorted(sorted(found, key=lambda g: -g[6])[:most], key=lambda g: g[4])
    index = np.array([group[:4] for group in found], dtype=np.int64).reshape(len(found), 4).T
    norm = strength.max(initial=0.0) or 1.0
    return Features(
        wave, strength / norm, index[0], index[1], index[2], index[3],
        np.array([group[4] for group in found]), np.array([group[5] for group in found]),
    )  # fmt: skip
