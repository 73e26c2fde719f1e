"""The stage of the 2-D extraction; its backends are found by their dotted paths, where they are installed."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.extract.grid import GridParams
from algorithms.extract.rows import SpectraParams
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.plan import resolve

Array = NDArray[np.float64]


CPU = "algorithms.extract.spectroperfect:extract_frame"


class Extractor(Protocol):
    """What a backend of the 2-D extraction has to be: a function of image, PSF and grid (docs/extraction.md)."""

    def __call__(
        self,
        image: Image,
        psf: GaussHermitePSF,
        wave: Array,
        *,
        fibers: NDArray[np.int32],
        bundle: NDArray[np.int64],
        nwavestep: int,
        regularize: float,
        ndecorr: bool,
        psf_error: float,
        weigh_psf_error: bool,
        doppler: float,
    ) -> Frame:
        """Spectra on `wave`, with their resolution.

        Parameters
        ----------
        image : left unchanged; pixels of ivar 0 or with a bit of EXTRACT_MASK do not count
        psf : of the wanted spectra alone, with the traces and widths of this exposure
        wave : (nwave,) centers of the bins, increasing [Angstrom]
        fibers : (nspec,) FIBER numbers of those spectra
        bundle : (nspec,) which of them lie side by side without a gap and so must be solved together
        nwavestep : how many bins to solve at once
        regularize : strength of a prior that holds unconstrained bins
        ndecorr : decorrelate the noise exactly instead of by signal
        psf_error : relative error of the PSF, for chi2 ...
        weigh_psf_error : ... and for the weights of the pixels and the errors of the flux, too
        doppler : the bins are those of wave / doppler on the CCD

        Returns
        -------
        Frame in electron/Angstrom, with mask, `resolution` bands and, if known, chi2pix
        """
        ...


class NotInstalled(MissingCalibration):
    """The extraction is not there; the stage is skipped with that reason, as for a missing calibration."""


class Extraction_2d(PipelineAlg[Image, Frame]):
    """Spectro-perfectionism extraction (Bolton & Schlegel 2010, PASP 122, 248) by the chosen backend.

    This stage only asks for what a backend needs (see `Extractor`): the image, the calibration PSF moved to the
    traces and widths of this exposure, and the grid.
    """

    class Params(SpectraParams, GridParams):
        backend: str = Field("cpu", description="what solves the equations: cpu, or package.module:name of a function")
        nwavestep: int = Field(50, ge=1, alias="Nwavestep", description="bins that are solved at once")
        regularize: float = Field(0.0, ge=0, alias="Regularize", description="strength of the prior on lost bins")
        ndecorr: bool = Field(True, description="decorrelate the noise exactly")
        psf_error: float = Field(0.01, ge=0, lt=1, description="relative error of the PSF, in chi2 of the model image")
        weigh_psf_error: bool = Field(
            False, description="count that error in the weights of the pixels and in ivar, too; takes twice as long"
        )

    def run(self, image: Image, context: Context) -> Frame:
        """Raises MissingCalibration if no PSF serves, or NotInstalled if the backend does not exist."""
        params = self.params
        extract = _extractor(CPU if params.backend == "cpu" else params.backend)
        psf = context.calibration.psf
        if image.traces is not None:
            psf = psf_with_traces(psf, image.traces)
        fibers = context.instrument.fibers(context.camera)
        if len(fibers) != psf.nspec:
            raise ValueError(
                f"{context.camera}: a PSF of {psf.nspec} spectra for {context.instrument.nspec} fibers of "
                f"{context.instrument.name}; give the PSF of this instrument"
            )
        chosen = params.chosen(fibers, context.camera)
        fibers = fibers[chosen]
        frame = extract(
            image,
            psf.select(chosen),
            params.grid(context.arm),
            fibers=fibers,
            bundle=context.instrument.bundle_of(fibers),
            nwavestep=params.nwavestep,
            regularize=params.regularize,
            ndecorr=params.ndecorr,
            psf_error=params.psf_error,
            weigh_psf_error=params.weigh_psf_error,
            doppler=params.doppler(image.meta),
        )
        return replace(
            frame,
            fibermap=None if context.fibermap is None else context.fibermap.select(fibers),
            meta={"FLAVOR": context.flavor}
            | image.meta
            | frame.meta
            | {"CAMERA": context.camera, "NSPEC": frame.nspec},
        )


def psf_with_traces(psf: GaussHermitePSF, traces: XYTraceSet) -> GaussHermitePSF:
    """The same spots at other traces, with the core widths of those where they have some."""
    own, coef = (traces.wavemin, traces.wavemax), dict(psf.coef)
    for name, series in (("GHSIGX", traces.xsigcoef), ("GHSIGY", traces.ysigcoef)):
        if series is not None:
            coef[name] = legendre.on_domain(series, own, (psf.wavemin, psf.wavemax))
    return replace(psf, traces=traces, coef=coef)


def _extractor(function: str) -> Extractor:
    """The backend; NotInstalled if its module or the name in it does not exist."""
    module = function.partition(":")[0]
    try:
        found: Extractor = resolve(function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, but something that it needs is not
        raise NotInstalled(f"2-D extraction is not installed: there is no module {error.name} ({function})") from None
    except AttributeError:
        raise NotInstalled(f"2-D extraction is not installed: {module} has no such function ({function})") from None
    return found
