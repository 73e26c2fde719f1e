"""The night sky as a spectrum: airglow lines whose bands vary through the night, continuum, and moonlight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qlstream.lines import sky_lines

Array = NDArray[np.float64]

# What the UVES sky atlas (Hanuschik 2003) has beside the lines of the table: continuum and lines too faint to be listed
# [Angstrom], [1e-17 erg/s/cm2/Angstrom/arcsec2]
_CONTINUUM = np.array(
    [
        (3500, 1.60), (3750, 1.18), (4000, 1.35), (4250, 1.45), (4500, 1.69), (4750, 1.64), (5000, 1.06), (5250, 0.99),
        (5500, 1.09), (5750, 1.07), (6000, 1.19), (6500, 1.13), (7000, 0.82), (7500, 0.78), (8000, 0.86), (8500, 0.57),
        (9000, 0.62), (9500, 0.58), (10000, 0.50),
    ]
)  # fmt: skip
BANDS = ("[OI]", "NaI", "[NI]", "OH", "O2")


@dataclass(frozen=True)
class Sky:
    """The sky of one exposure, the same in all fibers and cameras.

    Attributes
    ----------
    moonlight : scattered moonlight at 5500 Angstrom, in units of the dark continuum there
    bands : factor of each band's lines on those of the line table
    """

    moonlight: float = 0.0
    bands: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BANDS, 1.0))

    def continuum(self, wave: Array) -> Array:
        """(n,) [1e-17 erg/s/cm2/Angstrom/arcsec2]; moonlight is sunlight made bluer by scattering."""
        dark = np.interp(wave, *_CONTINUUM.T)
        sun = np.clip((wave - 3000.0) / 1500.0, 0.2, 1.0)
        return np.asarray(dark + self.moonlight * sun * (wave / 5500.0) ** -2.0)

    def lines(self) -> tuple[Array, Array]:
        """Wavelengths [Angstrom] and fluxes [1e-17 erg/s/cm2/arcsec2] of the lines."""
        table = sky_lines()
        factor = np.array([self.bands[name] for name in table["name"]])
        return table["wave"], table["strength"] * factor


def draw_sky(rng: np.random.Generator, moonlight: float) -> Sky:
    """A sky whose bands differ by some tens of percent from the average night."""
    return Sky(moonlight, {band: float(np.exp(rng.normal(0.0, 0.2))) for band in BANDS})
