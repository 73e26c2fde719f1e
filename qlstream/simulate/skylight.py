"""The night sky as a spectrum: airglow lines whose bands vary through the night, continuum, and moonlight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qlstream.lines import sky_lines

Array = NDArray[np.float64]

# Continuum between the lines of the UVES sky atlas (Hanuschik 2003) [1e-17 erg/s/cm2/Angstrom/arcsec2]
_CONTINUUM_WAVE = (3500, 4000, 4500, 5000, 5500, 6000, 6500, 7000, 7500, 8000, 8500, 9000, 9500, 10000)
_CONTINUUM = (1.35, 1.32, 1.45, 1.09, 1.03, 1.15, 1.00, 0.80, 0.76, 0.76, 0.66, 0.62, 0.60, 0.62)
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
        dark = np.interp(wave, _CONTINUUM_WAVE, _CONTINUUM)
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
