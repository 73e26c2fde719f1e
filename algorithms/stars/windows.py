"""Where the spectrum of a star tells about the star: not at bright sky lines, telluric bands, interstellar lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Window = tuple[float, float]

_SKY = (4047.5, 4359.3, 5462.3, 5578.9, 5891.3, 5897.3, 6301.8, 6365.4, 7823.3, 7855.2)  # of poor subtraction
_CALCIUM = (3934.78, 3969.59)  # interstellar lines mix in
_HALF = 6.0  # [Angstrom] that a line takes out on either side
_TELLURIC = ((6270.0, 6330.0), (6860.0, 6965.0), (7160.0, 7340.0), (7580.0, 7720.0), (8120.0, 9900.0))
_ENDS = 10  # bins at either end, where the resolution is known least


def of_the_star(wave: NDArray[np.float64], left_out: Sequence[Window] = ()) -> NDArray[np.bool_]:
    """(n,) bins that the star's atmosphere decides; `left_out` are further windows that tell nothing [Angstrom]."""
    lines = [(line - _HALF, line + _HALF) for line in (*_SKY, *_CALCIUM)]
    good = np.ones(wave.size, dtype=bool)
    for low, high in (*lines, *_TELLURIC, *left_out):
        good &= (wave < low) | (wave > high)
    good[:_ENDS] = good[-_ENDS:] = False
    return good
