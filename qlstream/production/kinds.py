"""The kinds of tasks of a night, in the order in which they depend on each other (spec production §1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What an input waits for. all: every task before it must be done. any: none may be pending, and one must be done.
# prefer: none may be pending; what is done is used, else the calibration tree.
Need = Literal["all", "any", "prefer"]


@dataclass(frozen=True)
class Upstream:
    """An input that other tasks make.

    Attributes
    ----------
    port : of the step that takes it
    kind, output : the tasks that make it, and which of their outputs
    need : what it waits for
    calibration : kind of calibration that serves in its place (with need "prefer")
    earlier : the files of earlier nights of the same tile are inputs, too, as far as the production has them
    flavor : of the exposures whose tasks count; "" for all
    """

    port: str
    kind: str
    output: str
    need: Need = "all"
    calibration: str = ""
    earlier: bool = False
    flavor: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Attributes
    ----------
    name : as in task names and plans
    per : the fields that tell its tasks apart
    flavors : of the exposures that ask for it
    upstream : what it waits for; tasks match where all fields that both have are equal
    outputs : (port, file type of `findfile`)
    raw : it takes the raw exposure, by the port "raw"
    fibermap : it takes the fibermap of its exposure, if there is one, by the port "fibermap"
    without : kind of calibration in whose absence it runs; "" if it always does
    """

    name: str
    per: tuple[str, ...]
    flavors: tuple[str, ...]
    upstream: tuple[Upstream, ...]
    outputs: tuple[tuple[str, str], ...]
    raw: bool = False
    fibermap: bool = False
    without: str = ""


_CAMERA = ("night", "expid", "camera")
_LAMPS_AND_SKY = ("flat", "science")
_PSF = Upstream("psf", "psfnight", "psf", "prefer", "PSF")
_FLAT = Upstream("fiberflat", "fiberflatnight", "fiberflat", "prefer", "FIBERFLAT")
_FRAME = Upstream("frame", "extract", "frame")
_SKY = Upstream("sky", "sky", "sky")

KINDS: tuple[Kind, ...] = (
    Kind("preproc", _CAMERA, ("arc", "flat", "science"), (), (("preproc", "preproc"),), raw=True, fibermap=True),
    Kind(
        "psfboot",
        ("night", "camera"),
        ("arc",),
        (
            Upstream("flat", "preproc", "preproc", "any", flavor="flat"),
            Upstream("arc", "preproc", "preproc", "any", flavor="arc"),
        ),
        (("psf", "psfbootnight"),),
        without="PSF",
    ),
    Kind(
        "psf",
        _CAMERA,
        ("arc",),
        (Upstream("preproc", "preproc", "preproc"), Upstream("psf", "psfboot", "psf", "prefer")),
        (("psf", "fitpsf"),),
    ),
    Kind("psfnight", ("night", "camera"), ("arc",), (Upstream("psfs", "psf", "psf", "any"),), (("psf", "psfnight"),)),
    Kind(
        "traceshift",
        _CAMERA,
        _LAMPS_AND_SKY,
        (Upstream("preproc", "preproc", "preproc"), _PSF),
        (("psf", "psf"),),
    ),
    Kind(
        "extract",
        _CAMERA,
        _LAMPS_AND_SKY,
        (Upstream("preproc", "preproc", "preproc"), Upstream("psf", "traceshift", "psf")),
        (("frame", "frame"),),
        fibermap=True,
    ),
    Kind("fiberflat", _CAMERA, ("flat",), (_FRAME,), (("fiberflat", "fiberflat"),)),
    Kind(
        "fiberflatnight",
        ("night", "camera"),
        ("flat",),
        (Upstream("fiberflats", "fiberflat", "fiberflat", "any"),),
        (("fiberflat", "fiberflatnight"),),
    ),
    Kind("sky", _CAMERA, ("science",), (_FRAME, _FLAT), (("sky", "sky"),)),
    Kind(
        "starfit",
        ("night", "expid", "petal"),
        ("science",),
        (
            Upstream("frames", "extract", "frame", "any"),
            Upstream("fiberflats", "fiberflatnight", "fiberflat", "prefer", "FIBERFLAT"),
            Upstream("skies", "sky", "sky", "any"),
        ),
        (("stdstars", "stdstars"),),
    ),
    Kind(
        "fluxcalib",
        _CAMERA,
        ("science",),
        (_FRAME, _FLAT, _SKY, Upstream("stdstars", "starfit", "stdstars")),
        (("fluxcalib", "fluxcalib"),),
    ),
    Kind(
        "cframe",
        _CAMERA,
        ("science",),
        (_FRAME, _FLAT, _SKY, Upstream("fluxcalib", "fluxcalib", "fluxcalib")),
        (("cframe", "cframe"),),
    ),
    Kind(
        "spectra",
        ("night", "tile", "petal"),
        ("science",),
        (Upstream("frames", "cframe", "cframe", "any", earlier=True),),
        (("spectra", "spectra_tile"),),
    ),
    Kind(
        "coadd",
        ("night", "tile", "petal"),
        ("science",),
        (Upstream("spectra", "spectra", "spectra"),),
        (("coadd", "coadd_tile"),),
    ),
    Kind(
        "redshift",
        ("night", "tile", "petal"),
        ("science",),
        (Upstream("coadd", "coadd", "coadd"),),
        (("redrock", "redrock_tile"),),
    ),
)
