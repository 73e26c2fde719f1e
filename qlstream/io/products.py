"""Which writer makes which product of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.linewidths import LineWidths
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.fiberflat import write_fiberflat
from qlstream.io.frame import write_frame
from qlstream.io.image import write_image
from qlstream.io.qframe import write_qframe
from qlstream.io.sky import write_sky
from qlstream.io.xytraceset import write_xytraceset


def write_product(kind: str, data: Any, path: Path | str) -> None:
    """Write the output of a stage as a product.

    Parameters
    ----------
    kind : a key of the table below, e.g. qframe
    data : what the stage gave

    Raises
    ------
    ValueError : unknown product, or one that cannot be made of such data
    """
    if kind not in _WRITERS:
        raise ValueError(f"unknown product {kind!r}; a plan may write {', '.join(PRODUCTS)}")
    accepted, write = _WRITERS[kind]
    if not isinstance(data, accepted):
        needed = " or ".join(c.__name__ for c in accepted)
        raise ValueError(f"product {kind} cannot be made of {type(data).__name__}; it needs {needed}")
    write(path, data)


def can_make(kind: str, data_type: type) -> bool:
    """Whether the output of a stage that is declared as `data_type` may make the product `kind`."""
    return any(issubclass(data_type, one) or issubclass(one, data_type) for one in _WRITERS[kind][0])


def _write_traces(path: Path | str, data: Image | XYTraceSet | LineWidths) -> None:
    if isinstance(data, (XYTraceSet, LineWidths)):
        write_xytraceset(path, data.traces if isinstance(data, LineWidths) else data)
        return
    if data.traces is None:
        raise ValueError(f"product psf: the image of {data.camera} has no traces; Flexure must run before")
    meta: dict[str, object] = {**(data.traces.meta or {}), **data.meta}
    write_xytraceset(path, replace(data.traces, meta=meta))


def _write_spectra(path: Path | str, data: QFrame | LineWidths) -> None:
    write_qframe(path, data.spectra if isinstance(data, LineWidths) else data)


def _write_quick_sky(path: Path | str, qframe: QFrame) -> None:
    if qframe.sky is None:
        raise ValueError(f"product qsky: the qframe of {qframe.camera} has no sky model; SkySub must run before")
    write_qframe(path, replace(qframe, flux=qframe.sky, ivar=np.ones_like(qframe.sky)))


def _write_sky(path: Path | str, data: SkyModel | Frame) -> None:
    sky = data.sky if isinstance(data, Frame) else data
    if sky is None:
        raise ValueError("product sky: this frame has no sky model; ComputeSky or SkySub must run before")
    write_sky(path, sky)


_WRITERS: dict[str, tuple[tuple[type, ...], Callable[[Path | str, Any], None]]] = {
    "preproc": ((Image,), write_image),
    "psf": ((Image, XYTraceSet, LineWidths), _write_traces),
    "qframe": ((QFrame, LineWidths), _write_spectra),
    "qfframe": ((QFrame,), write_qframe),
    "qsframe": ((QFrame,), write_qframe),
    "qcframe": ((QFrame,), write_qframe),
    "qsky": ((QFrame,), _write_quick_sky),
    "qfiberflat": ((FiberFlat,), write_fiberflat),
    "frame": ((Frame,), write_frame),
    "fframe": ((Frame,), write_frame),
    "sframe": ((Frame,), write_frame),
    "cframe": ((Frame,), write_frame),
    "sky": ((SkyModel, Frame), _write_sky),
    "fiberflat": ((FiberFlat,), write_fiberflat),
}

PRODUCTS = tuple(_WRITERS)
