"""The instrument as data: arms, spectrographs, fibers, bundles, amplifiers and wavelength grids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qlstream.configs import config_path


class Arm(BaseModel):
    """One wavelength arm: its CCD format and its dispersion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z]$", description="letter that begins the camera's name")
    nx: int = Field(gt=0, description="columns of the trimmed CCD")
    ny: int = Field(gt=0, description="rows of the trimmed CCD")
    prescan: int = Field(ge=0, description="prescan columns on each outer edge [pixel]")
    overscan: int = Field(gt=4, description="overscan columns of each amplifier [pixel]")
    overscan_rows: int = Field(ge=0, description="overscan rows of each amplifier [pixel]")
    prescan_rows: int = Field(ge=0, description="prescan rows on each outer edge [pixel]")
    wave_on_ccd: tuple[float, float] = Field(description="wavelengths at the first and last row, mid fiber [Angstrom]")
    wave_science: tuple[float, float] = Field(description="range used for science and QA [Angstrom]")
    dispersion: tuple[float, float] = Field(description="step at the blue and the red end [Angstrom/pixel]")
    smile: float = Field(description="how much lower the middle fiber's spectrum sits than the edge's [pixel]")
    xsigma: float = Field(gt=0, description="cross-dispersion sigma of a spot [pixel]")
    ysigma: float = Field(gt=0, description="dispersion-direction sigma of a spot [pixel]")
    readnoise: float = Field(gt=0, description="typical read noise [electron]")
    gain: float = Field(gt=0, description="typical gain [electron/ADU]")
    dark: float = Field(ge=0, description="typical dark current [electron/hour]")
    throughput: float = Field(gt=0, le=1, description="peak of telescope to CCD; atmosphere and fiber losses apart")
    thickness: float = Field(gt=0, description="of the silicon [micron]")
    cosmic_rate: float = Field(ge=0, description="cosmic rays on the whole CCD [1/minute]")
    band: str = Field(description="imaging band of this arm: FLUX_<band> of the fibermap")
    filter_curve: str = Field(description="filter of that band, by its speclite name")
    sky_windows: tuple[tuple[float, float], ...] = Field(description="ranges free of bright sky lines [Angstrom]")
    top_hat: tuple[float, float] | None = Field(
        None, description="range of the fluxes that are compared from fiber to fiber [Angstrom]; wave_science if absent"
    )

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the trimmed image."""
        return self.ny, self.nx


class Instrument(BaseModel):
    """A fiber-fed multi-object spectrograph; no stage knows its numbers but from here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spectrographs: tuple[int, ...] = Field(min_length=1)
    bundles: int = Field(gt=0, description="fiber bundles (blocks) of a spectrograph")
    fibers_per_bundle: int = Field(gt=0)
    fiber_spacing: float = Field(gt=2, description="distance of neighbours inside a bundle [pixel]")
    bundle_gap: float = Field(gt=2, description="distance of neighbours across a gap between bundles [pixel]")
    first_fiber_x: float = Field(gt=0, description="column of the first trace at mid wavelength [pixel]")
    trace_bow: float = Field(description="how far a trace at the CCD's edge bends outwards [pixel]")
    fiber_diameter: float = Field(gt=0, description="on the sky [arcsec]")
    mirror_area: float = Field(gt=0, description="effective collecting area [cm^2]")
    extraction_half_width: float = Field(gt=0, description="half width of the boxcar window [pixel]")
    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _traces_fit_on_the_ccd(self) -> Instrument:
        last = self.trace_columns()[-1] + self.trace_bow
        for arm in self.arms:
            if last + self.extraction_half_width > arm.nx:
                raise ValueError(
                    f"{self.name}: the last of {self.nspec} traces lies at column {last:.0f}, "
                    f"beyond the {arm.nx} columns of arm {arm.name}"
                )
        return self

    @property
    def nspec(self) -> int:
        """Fibers of one spectrograph, and so spectra of one camera."""
        return self.bundles * self.fibers_per_bundle

    @property
    def cameras(self) -> tuple[str, ...]:
        """All cameras, spectrograph by spectrograph: b0, r0, z0, b1, ..."""
        return tuple(f"{arm.name}{sp}" for sp in self.spectrographs for arm in self.arms)

    def arm(self, camera: str) -> Arm:
        """The arm of a camera ("r3") or of a letter ("r").

        Raises
        ------
        KeyError : the instrument has no such arm
        """
        for arm in self.arms:
            if arm.name == camera[:1].lower():
                return arm
        raise KeyError(f"{self.name} has no arm {camera[:1]!r}; it has {', '.join(a.name for a in self.arms)}")

    def spectrograph(self, camera: str) -> int:
        """The spectrograph number of a camera: 3 of "r3".

        Raises
        ------
        KeyError : the instrument has no such camera
        """
        if camera.lower() not in self.cameras:
            raise KeyError(f"{self.name} has no camera {camera!r}; it has {self.cameras[0]} to {self.cameras[-1]}")
        return int(camera[1:])

    def fibers(self, camera: str) -> NDArray[np.int32]:
        """(nspec,) FIBER numbers of the spectra of a camera, in CCD order."""
        return (self.spectrograph(camera) * self.nspec + np.arange(self.nspec)).astype(np.int32)

    def bundle_of(self, index: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Bundle number of fiber indices or FIBER numbers."""
        return np.asarray((np.asarray(index) % self.nspec) // self.fibers_per_bundle, dtype=np.int64)

    def trace_columns(self) -> NDArray[np.float64]:
        """(nspec,) nominal column of each trace at mid wavelength [pixel]."""
        step = np.full(self.nspec, self.fiber_spacing)
        step[:: self.fibers_per_bundle] = self.bundle_gap
        step[0] = 0.0
        return self.first_fiber_x + np.cumsum(step)


@cache
def load_instrument(name: str) -> Instrument:
    """An instrument by the name of its shipped YAML file ("desi", "mini") or by the path of an own one.

    Raises
    ------
    FileNotFoundError : no such file
    ValueError : a value is missing or out of bounds; the message names file, key and value
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_path("instruments", f"{name}.yaml")
    try:
        return Instrument.model_validate(yaml.safe_load(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def instrument_of(header: Mapping[str, Any], setting: str = "auto") -> Instrument:
    """The instrument that took an exposure: `setting`, or if that is "auto" what INSTRUME says, else desi.

    Raises
    ------
    FileNotFoundError, ValueError : as `load_instrument`
    """
    if setting != "auto":
        return load_instrument(setting)
    name = str(header.get("INSTRUME", "")).strip().lower()
    shipped = {path.stem for path in config_path("instruments").glob("*.yaml")}
    return load_instrument(name if name in shipped else "desi")
