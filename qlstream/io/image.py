"""Preprocessed CCD images, `preproc-CAM-EXPID.fits` (spec datamodel §2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qlstream.datamodel.amplifier import AMP_NAMES, Amp
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.image import AmpReadout, Image
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import fibermap_hdu
from qlstream.io.fitsfile import HDU, Cards, FitsFile, required, write_fits

# card of each amplifier (x stands for its name) -> attribute of AmpReadout, as desispec spells them
_READOUT_CARDS = {
    "GAIN": "gain",
    "SATULEV": "saturlev",
    "OSTEP": "ostep",
    "OMETH": "overscan_method",
    "OVERSCN": "overscan",
    "OBSRDN": "readnoise",
}


def read_image(path: Path | str) -> Image:
    """A preprocessed image. What the readouts measured row by row is not in the file, so it comes back empty.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU or CAMERA is missing, or a shape does not fit
    """
    with FitsFile(path) as fits:
        header = fits.header(0)
        pix = fits.image(fits.find("IMAGE") or 0).astype(np.float32, copy=False)
        if pix.ndim != 2:
            raise BadFile(fits.path, f"shape {pix.shape}", "IMAGE", expected="a 2-D image")
        readnoise = fits.image("READNOISE", pix.shape).astype(np.float32, copy=False) if "READNOISE" in fits else None
        if readnoise is None and header.get("RDNOISE") is not None:
            readnoise = np.full(pix.shape, required(fits.path, header, "RDNOISE", float, "IMAGE"), dtype=np.float32)
        return Image(
            pix=pix,
            ivar=fits.image("IVAR", pix.shape).astype(np.float32, copy=False),
            mask=fits.image("MASK", pix.shape).astype(np.uint16),
            camera=required(fits.path, header, "CAMERA", str, "IMAGE").strip().lower(),
            readouts=_readouts(header),
            meta=header,
            readnoise_image=readnoise,
        )


def write_image(path: Path | str, image: Image, fibermap: Fibermap | None = None) -> None:
    """IMAGE, IVAR, MASK (Rice-compressed int16), READNOISE and, if given, the rows of this petal."""
    write_fits(
        path,
        [
            HDU("IMAGE", image.pix, {**image.meta, "CAMERA": image.camera, **readout_cards(image.readouts)}),
            HDU("IVAR", image.ivar),
            HDU("MASK", image.mask.astype(np.int16), compress_rows=True),
            HDU("READNOISE", image.readnoise),
            *([fibermap_hdu(fibermap)] if fibermap is not None else []),
        ],
    )


def readout_cards(readouts: tuple[AmpReadout, ...]) -> Cards:
    """The header cards of what preprocessing measured on each amplifier: GAINx, SATULEVx, SATUELEx, OSTEPx ..."""
    cards: Cards = {}
    for readout in readouts:
        for key, attribute in _READOUT_CARDS.items():
            cards[key + readout.name] = getattr(readout, attribute)
        cards["SATUELE" + readout.name] = (readout.saturlev - readout.overscan) * readout.gain
    return cards


def _readouts(header: Cards) -> tuple[AmpReadout, ...]:
    """The readouts that the cards tell completely."""
    found = []
    for name in AMP_NAMES:
        values: dict[str, Any] = {a: header.get(key + name) for key, a in _READOUT_CARDS.items()}
        try:
            amp = Amp.from_header(name, header)
            numbers = {a: float(v) for a, v in values.items() if a != "overscan_method"}
        except (KeyError, TypeError, ValueError):
            continue
        empty = np.empty(0, dtype=np.float32)
        method = str(values["overscan_method"] or "AVERAGE")
        found.append(AmpReadout(amp=amp, overscan_rows=empty, overscan_method=method, **numbers))
    return tuple(found)
