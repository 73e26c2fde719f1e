"""What a stage may know beside its input."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qlstream.calibration.served import Calibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.instrument import Arm, Instrument
from qlstream.pipeline.ranges import Ranges


class Buffers:
    """Arrays that outlive one camera, so that a warm worker pays their page faults once."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of this shape and dtype; its content is whatever the last user left.

        The next camera gets the same memory: what must outlive the camera has to be copied.
        """
        have = self._arrays.get(name)
        if have is None or have.shape != shape or have.dtype != np.dtype(dtype):
            have = self._arrays[name] = np.empty(shape, dtype)
        return have


@dataclass(frozen=True)
class Context:
    """Everything around the data of one camera of one exposure.

    Attributes
    ----------
    night, expid, camera : what is being reduced
    flavor : zero, dark, arc, flat or science
    program : e.g. "dark", "bright" for science, "" otherwise
    header : cards of the camera, completed by those of the exposure
    fibermap : rows of this camera's fibers in CCD order; None for zero and dark, or if it never came
    instrument : its geometry
    calibration : what serves this exposure; a missing part raises MissingCalibration when asked for
    ranges : reference ranges of the metrics
    buffers : reusable arrays of this worker
    log : tagged with expid and camera
    earlier : output of each earlier stage by name (not copied: read only)
    """

    night: int
    expid: int
    camera: str
    flavor: str
    program: str
    header: Mapping[str, Any]
    fibermap: Fibermap | None
    instrument: Instrument
    calibration: Calibration
    ranges: Ranges
    buffers: Buffers = field(default_factory=Buffers)
    log: logging.Logger | logging.LoggerAdapter[Any] = field(default_factory=lambda: logging.getLogger("qlstream"))
    earlier: dict[str, Any] = field(default_factory=dict)

    @property
    def arm(self) -> Arm:
        return self.instrument.arm(self.camera)

    @property
    def exptime(self) -> float:
        """Exposure time [second]; 0 if the header has none."""
        return float(self.header.get("EXPTIME", 0.0) or 0.0)

    @property
    def where(self) -> dict[str, str]:
        """The selectors of a reference range, and which amplifiers are known to be bad and so not judged."""
        return {
            "instrument": self.instrument.name,
            "camera": self.camera,
            "arm": self.camera[:1],
            "flavor": self.flavor,
            "program": self.program,
            "bad_amps": self.calibration.bad_amps,
        }
