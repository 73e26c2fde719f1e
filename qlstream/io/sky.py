"""Sky models (spec datamodel §5.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qlstream.datamodel.sky import SkyModel
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

# optional HDU -> attribute of SkyModel
_OPTIONAL = {
    "STATIVAR": "stat_ivar",
    "THRPUTCORR": "throughput",
    "THRPUTCORR_MOD": "throughput_model",
    "DWAVECOEFF": "dwavecoeff",
    "DLSFCOEFF": "dlsfcoeff",
    "SKYGRADPCACOEFF": "skygradpcacoeff",
}


def read_sky(path: Path | str) -> SkyModel:
    """A sky model; float64 in memory.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing or its shape does not fit
    """
    with FitsFile(path) as fits:
        flux = fits.image(fits.find("SKY") or 0).astype(np.float64)
        optional: dict[str, Any] = {
            attribute: fits.image(name).astype(np.float64) for name, attribute in _OPTIONAL.items() if name in fits
        }
        if "SKYTARGETID" in fits:
            optional["skytargetid"] = fits.image("SKYTARGETID").astype(np.int64)
        meta = fits.header(0)
        meta.pop("BUNIT", None)
        return SkyModel(
            wave=fits.image("WAVELENGTH", flux.shape[1:]).astype(np.float64),
            flux=flux,
            ivar=fits.image("IVAR", flux.shape).astype(np.float64),
            mask=fits.image("MASK", flux.shape).astype(np.uint32),
            meta=meta,
            **optional,
        )


def write_sky(path: Path | str, sky: SkyModel) -> None:
    """SKY, IVAR, MASK, WAVELENGTH, and the optional HDUs that the model has."""
    hdus = [
        HDU("SKY", sky.flux.astype(np.float32), {**sky.meta, "BUNIT": "electron/Angstrom"}),
        HDU("IVAR", sky.ivar.astype(np.float32)),
        HDU("MASK", sky.mask.astype(np.uint32)),
        HDU("WAVELENGTH", sky.wave.astype(np.float32), {"BUNIT": "Angstrom"}),
    ]
    for name, attribute in _OPTIONAL.items():
        values = getattr(sky, attribute)
        if values is not None:
            hdus.append(HDU(name, values.astype(np.float32)))
    if sky.skytargetid is not None:
        hdus.append(HDU("SKYTARGETID", sky.skytargetid))
    write_fits(path, hdus)
