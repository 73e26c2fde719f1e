"""Which standard stars of a petal calibrate a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.stars import StdStars

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StarCuts:
    """How good a star's model must be.

    Attributes
    ----------
    color : largest difference of model and photometry [mag], to which 0.2 E(B-V) is added
    chi2dof : largest chi2 per degree of freedom
    chi2_nsig : largest deviation of chi2/dof upwards from the median of the petal's stars, in their scatter
    min_color : bluest colour of a star without dust [mag]
    """

    color: float = 0.2
    chi2dof: float = 3.0
    chi2_nsig: float = 5.0
    min_color: float = -1.0


def choose_stars(frame: Frame, stars: StdStars, cuts: StarCuts) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Indices (n,) of the good stars among all and in the frame, and their models (n, nwave) on its wavelengths.

    Raises
    ------
    MissingCalibration : none is good enough; the message counts what each cut took
    ValueError : the table of the stars lacks a column
    """
    table = stars.metadata
    if not len(table):
        raise MissingCalibration(f"the file of standard stars holds none, so {frame.camera} cannot be calibrated")
    name = _color(stars)
    here = np.isin(stars.fibers, frame.fibers)
    chi2 = table["CHI2DOF"]
    ebv = table["EBV"] if "EBV" in (table.dtype.names or ()) else np.zeros(len(table))
    off = ~(np.abs(table[f"DATA_{name}"] - table[f"MODEL_{name}"]) <= cuts.color + 0.2 * ebv)  # not known is off
    scatter = 1.4826 * float(np.median(np.abs(chi2 - np.median(chi2))))
    reasons = {
        "are not in this frame": ~here,
        f"have a model whose colour {name} is off by more than {cuts.color:g} + 0.2 E(B-V) mag": off,
        f"have chi2/dof above {cuts.chi2dof:g}": ~(chi2 < cuts.chi2dof),
        # a handful of stars has no scatter to speak of, and a tenth more than the others is no reason
        "have chi2/dof far above the others": chi2 - np.median(chi2) > np.maximum(cuts.chi2_nsig * scatter, 0.5),
        f"are bluer than {name} {cuts.min_color:g}": table[f"DATA_{name}"] < cuts.min_color,
    }
    good = ~np.any(list(reasons.values()), axis=0)
    if not good.any():
        told = "; ".join(f"{bad.sum()} {what}" for what, bad in reasons.items() if bad.any())
        raise MissingCalibration(
            f"none of the {len(table)} standard stars is good enough to calibrate {frame.camera}: {told}. Look at the "
            "stars' models, or relax the cuts (color, chi2dof, chi2_nsig, min_color)"
        )
    order = np.argsort(frame.fibers, kind="stable")
    index = order[np.searchsorted(frame.fibers, stars.fibers[good], sorter=order)]
    models = np.stack([np.interp(frame.wave, stars.wave, row) for row in stars.flux[good]])
    return np.flatnonzero(good), index, models


def _color(stars: StdStars) -> str:
    """The colour that the stars were compared in, e.g. "G-R"; the one with a DATA_ and a MODEL_ column.

    Raises
    ------
    ValueError : the table lacks them, or CHI2DOF
    """
    names = stars.metadata.dtype.names or ()
    found = [n.removeprefix("DATA_") for n in names if n.startswith("DATA_") and n.replace("DATA_", "MODEL_") in names]
    if not found or "CHI2DOF" not in names:
        raise ValueError(
            f"the table of standard stars has {', '.join(names)}; CHI2DOF, DATA_<color> and MODEL_<color> are needed"
        )
    return found[0]
