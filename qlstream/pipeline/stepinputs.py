"""Do the files that a step was given fit each other, and what it takes?

What a product is, and of which camera and exposure, stands in its headers; a file that does not say is taken as given.
The production knows its files; people mix them up, and a fiber flat of another camera would serve without complaint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlstream.datamodel.flavor import flavor_of
from qlstream.io.firstheader import read_first_header
from qlstream.io.fitsfile import FitsFile
from qlstream.pipeline.filestep import FileStep, StepFiles

_PRODUCTS = {
    "IMAGE": "preproc", "SKY": "sky", "FIBERFLAT": "fiberflat", "FLUXCALIB": "fluxcalib", "XTRACE": "psf", "PSF": "psf",
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What the headers of a file tell; "" and None where they tell nothing.

    Attributes
    ----------
    product : preproc, psf, frame, cframe, fiberflat, sky, stdstars or fluxcalib
    flavor : of its exposure
    """

    product: str = ""
    flavor: str = ""
    camera: str = ""
    expid: int | None = None


def look(path: Path) -> Told:
    """Read what a file tells of itself.

    Raises
    ------
    BadFile, OSError : it is no FITS file, or cannot be read
    """
    cards = read_first_header(path)
    first = str(cards.get("EXTNAME", "")).strip().upper()
    if _PRODUCTS.get(first) == "psf":
        with FitsFile(path) as fits:
            cards = (fits.header("PSF") if "PSF" in fits else {}) | cards
    camera = str(cards.get("CAMERA", "")).strip().lower()
    product = _spectra(cards, camera) if first == "FLUX" else _PRODUCTS.get(first, "")
    try:
        flavor = flavor_of(cards)
    except ValueError:  # it says nothing of it
        flavor = ""
    return Told(product, flavor, camera, int(cards["EXPID"]) if "EXPID" in cards else None)


def check_inputs(step: FileStep, files: StepFiles) -> None:
    """Compare what the inputs tell with what the step takes, and with each other.

    Raises
    ------
    ValueError : naming every file that does not fit
    BadFile, OSError : a file cannot be read
    """
    wrong = []
    cameras: dict[str, list[str]] = defaultdict(list)
    expids: dict[int, list[str]] = defaultdict(list)
    for port in step.inputs:
        for path in files.all(port.name):
            told = look(path)
            if port.holds and told.product and told.product != port.holds:
                wrong.append(f"--{port.option} {path} is a {told.product}; expected a {port.holds} ({port.help})")
            elif port.flavor and told.flavor and told.flavor != port.flavor:
                wrong.append(f"--{port.option} {path} is of a {told.flavor} exposure; expected a {port.flavor}")
            if told.camera:
                cameras[told.camera].append(f"--{port.option} {path.name}")
            if told.expid is not None and port.same_exposure:
                expids[told.expid].append(f"--{port.option} {path.name}")
    if step.one_camera:
        asked = str(getattr(step.params, "camera", "")).strip().lower()
        if asked:
            cameras[asked].append(f"--camera {asked}")
        wrong += _several("camera", cameras)
    wrong += _several("exposure", expids)
    if wrong:
        raise ValueError("\n".join(wrong))


def _spectra(cards: Mapping[str, Any], camera: str) -> str:
    """Frames are of one camera, the models of stars of a petal; calibrated ones have a flux with erg."""
    if not camera:
        return "stdstars"
    return "cframe" if "erg" in str(cards.get("BUNIT", "")) else "frame"


def _several(what: str, found: Mapping[Any, list[str]]) -> list[str]:
    if len(found) < 2:
        return []
    listed = "; ".join(f"{value}: {', '.join(names)}" for value, names in found.items())
    return [f"files of more than one {what}: {listed}"]
