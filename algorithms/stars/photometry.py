"""Which magnitudes tell the colour and the scale of standard stars: those of the imaging surveys, or Gaia's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from speclite import filters

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.dust import transmission

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Photometry:
    """Magnitudes in a fibermap, and the filters they are of.

    Attributes
    ----------
    color : name of the colour blue - red, e.g. "G-R"
    blue, red, scale : bands of the colour, and the one that sets the scale of a model
    filters : of each band, as speclite names them
    columns : of each band
    valid : magnitudes that a star may have
    vega : what to add to the magnitudes of each band to make them AB; None says that columns are fluxes [nanomaggy]
    """

    color: str
    blue: str
    red: str
    scale: str
    filters: Mapping[str, str]
    columns: Mapping[str, str]
    valid: tuple[float, float]
    vega: Mapping[str, float] | None = None

    def observed(self, fibermap: Fibermap, band: str) -> Array:
        """(nspec,) AB magnitudes; nan where there is none."""
        values = fibermap.column(self.columns[band], np.nan).astype(float)
        if self.vega is None:
            with np.errstate(divide="ignore", invalid="ignore"):
                magnitude = 22.5 - 2.5 * np.log10(values)
        else:
            magnitude = values
        with np.errstate(invalid="ignore"):
            good = (magnitude > self.valid[0]) & (magnitude < self.valid[1])
        return np.where(good, magnitude + (0.0 if self.vega is None else self.vega[band]), np.nan)

    def has(self, fibermap: Fibermap) -> NDArray[np.bool_]:
        """(nspec,) whether colour and scale are known."""
        return np.all([np.isfinite(self.observed(fibermap, band)) for band in self.filters], axis=0)

    def of(self, wave: Array, flux: Array, band: str) -> float:
        """AB magnitude of a spectrum [erg/s/cm2/Angstrom]; beyond its ends it goes on as it ends."""
        curve = filters.load_filter(self.filters[band])
        padded, grid = curve.pad_spectrum(flux, wave, method="edge")
        return float(curve.get_ab_magnitude(padded, grid))

    def colors(self, templates: StarTemplates) -> Array:
        """(ntemplate,) blue - red [mag]."""
        rows = templates.flux.astype(np.float64)
        blue, red = (np.array([self.of(templates.wave, row, band) for row in rows]) for band in (self.blue, self.red))
        return np.asarray(blue - red)

    def reddening(self, templates: StarTemplates, ebv: float) -> float:
        """What dust adds to the colour of the middle template [mag]; it is nearly the same for all stars."""
        flux = templates.flux[len(templates) // 2].astype(np.float64)
        behind = flux * transmission(templates.wave, ebv)
        blue, red = (
            self.of(templates.wave, behind, b) - self.of(templates.wave, flux, b) for b in (self.blue, self.red)
        )
        return blue - red


def _survey(g: str, r: str) -> Photometry:
    columns = {"G": "FLUX_G", "R": "FLUX_R"}
    return Photometry("G-R", "G", "R", "R", {"G": g, "R": r}, columns, (0.0, 30.0))


SOUTH, NORTH = _survey("decam2014-g", "decam2014-r"), _survey("BASS-g", "BASS-r")
# zero points: Riello et al. 2021 (A&A 649, A3), table 3, AB less Vega
GAIA = Photometry(
    "GAIA-BP-RP",
    "BP",
    "RP",
    "G",
    {"BP": "gaiadr3-BP", "RP": "gaiadr3-RP", "G": "gaiadr3-G"},
    {band: f"GAIA_PHOT_{band}_MEAN_MAG" for band in ("BP", "RP", "G")},
    (10.0, 20.0),
    {"BP": 0.0155, "RP": 0.3561, "G": 0.1136},
)


def photometry_of(fibermap: Fibermap, stars: NDArray[np.bool_]) -> Photometry:
    """The photometry that most of the stars (nspec,) have; that of the imaging surveys, if as many have both."""
    names = np.char.strip(fibermap.column("PHOTSYS", "S").astype(str))
    survey = NORTH if (names[stars] == "N").sum() > 0.5 * stars.sum() else SOUTH
    return max((survey, GAIA), key=lambda system: int((system.has(fibermap) & stars).sum()))
