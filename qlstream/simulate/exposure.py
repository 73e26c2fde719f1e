"""One camera of one exposure, from the light that enters the fibers to the raw image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.image import RawCamera
from qlstream.instrument import Instrument
from qlstream.simulate.cosmics import draw_cosmics
from qlstream.simulate.detector import Detector, build_detector, collect, read_out
from qlstream.simulate.faults import Fault, amplifiers_hit
from qlstream.simulate.flexure import draw_flexure
from qlstream.simulate.headers import camera_header, exposure_header
from qlstream.simulate.lamps import arc_light, flat_light
from qlstream.simulate.optics import Optics, build_optics
from qlstream.simulate.render import RowGeometry, paint, row_geometry, spread_continuum, spread_lines
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.seeds import generator
from qlstream.simulate.skylight import draw_sky
from qlstream.simulate.targets import Targets, assign_targets
from qlstream.simulate.throughput import Throughput, atmosphere, build_throughput
from qlstream.simulate.truth import Truth

Array = NDArray[np.float64]

GRID_STEP = 0.5  # of the spectra before they reach the CCD [Angstrom]
NOISY, JUMP, WARM, DEFOCUS, MOON = 6.0, 40.0, 50.0, 1.5, 8.0  # how strong the faults are


@dataclass(frozen=True)
class CameraModel:
    """Everything about a camera that does not change from exposure to exposure."""

    instrument: Instrument
    camera: str
    seed: int
    optics: Optics
    throughput: Throughput
    detector: Detector


@dataclass(frozen=True)
class SimulatedCamera:
    """A raw camera and the truth about it.

    Attributes
    ----------
    raw : as it would be read from its file
    cards : of its own HDU alone
    truth : what a perfect reduction would find
    """

    raw: RawCamera
    cards: dict[str, Any]
    truth: Truth


@lru_cache(maxsize=3)
def build_camera(instrument: Instrument, camera: str, seed: int) -> CameraModel:
    """The camera as manufactured; `seed` decides its peculiarities."""
    return CameraModel(
        instrument,
        camera,
        seed,
        build_optics(instrument, camera, seed),
        build_throughput(instrument, camera, seed),
        build_detector(instrument, camera, seed),
    )


def simulate_camera(
    instrument: Instrument,
    camera: str,
    exposure: Exposure,
    seed: int = 1,
    faults: Sequence[Fault] = (),
    targets: Targets | None = None,
    cameras: Sequence[str] | None = None,
) -> SimulatedCamera:
    """Simulate one camera of one exposure.

    Parameters
    ----------
    camera : e.g. "r0"
    exposure : `Exposure("flat", expid=3, exptime=120.0)`, or one of `plan_night`
    seed : decides the instrument and, with the night and the exposure number, the exposure
    faults : those that concern this camera and exposure are applied
    targets : as `assign_targets` gives them; drawn if not given
    cameras : that the exposure header promises; this one if not given

    Raises
    ------
    KeyError : the instrument has no such camera
    """
    model = build_camera(instrument, camera, seed)
    faults = tuple(fault for fault in faults if fault.hits(exposure, camera))
    kinds = {fault.kind for fault in faults}
    if targets is None:
        targets = assign_targets(instrument, exposure, seed, faults)
    flexure = draw_flexure(camera, exposure, seed, DEFOCUS if "out-of-focus" in kinds else 1.0)
    optics = flexure.applied_to(model.optics)
    geometry = row_geometry(optics)

    sky, target = _light(model, optics, geometry, exposure, targets, kinds)
    image = paint(geometry, sky + target, optics.hermite_x, optics.shape[1])
    cosmics = draw_cosmics(model.detector.arm, exposure.exptime, _rng(model, exposure, "cosmics"))
    warm = WARM if "warm-ccd" in kinds else 1.0
    wells = collect(model.detector, image, exposure.exptime, _rng(model, exposure, "photons"), warm) + cosmics
    pix = read_out(
        model.detector,
        wells,
        _rng(model, exposure, "readout"),
        noise_factor=dict.fromkeys(amplifiers_hit(faults, "noisy-amp"), NOISY),
        dead=amplifiers_hit(faults, "dead-amp"),
        jump=dict.fromkeys(amplifiers_hit(faults, "bias-jump"), JUMP),
    )

    primary = exposure_header(exposure, instrument, cameras or (camera,), "moonlit" in kinds)
    header = camera_header(exposure, camera, instrument, model.detector, seed, warm > 1.0)
    raw = RawCamera(pix, camera, {**primary, **header}, primary, model.detector.amps)
    wave, dx, dy = flexure.shifts(model.optics)
    fibers = instrument.fibers(camera)
    truth = Truth(
        wave=geometry.wave,
        sky=sky,
        target=target,
        image=image,
        cosmics=cosmics,
        psf=optics.psf,
        shift_wave=wave,
        dx=dx,
        dy=dy,
        fiberflat=model.throughput.relative(geometry.wave),
        throughput=_per_row(model, geometry),
        targets=_target_table(instrument, exposure, targets, fibers),
        faults=tuple(str(fault) for fault in faults),
    )
    return SimulatedCamera(raw, header, truth)


def _light(
    model: CameraModel,
    optics: Optics,
    geometry: RowGeometry,
    exposure: Exposure,
    targets: Targets,
    kinds: set[str],
) -> tuple[Array, Array]:
    """(sky or lamps, targets): (nspec, ny) expected electrons per row."""
    nothing = np.zeros(geometry.wave.shape)
    grid = np.arange(optics.traces.wavemin - 1.0, optics.traces.wavemax + 1.0, GRID_STEP)
    through = model.throughput
    arm = model.detector.arm
    if exposure.flavor == "arc" and "lamp-off" not in kinds:
        wave, electrons = arc_light(generator(model.seed, exposure.night, exposure.expid, "arc"), exposure.exptime)
        of_arm = through.of_arm(wave) / arm.throughput
        return spread_lines(optics, geometry, wave, through.of_fibers(wave) * of_arm * electrons), nothing
    if exposure.flavor == "flat" and "lamp-off" not in kinds:
        lamp = flat_light(arm, grid, exposure.exptime) * through.of_arm(grid) / arm.throughput
        return spread_continuum(geometry, grid, through.of_fibers(grid) * lamp, optics.hermite_y), nothing
    if exposure.flavor != "science":
        return nothing, nothing

    moonlight = exposure.moonlight + (MOON if "moonlit" in kinds else 0.0)
    sky = draw_sky(generator(model.seed, exposure.night, exposure.expid, "sky"), moonlight)
    area = np.pi * (0.5 * model.instrument.fiber_diameter) ** 2
    of_fibers = through.of_fibers(grid)
    perfect = through.electrons(grid) * exposure.exptime
    continuum = spread_continuum(geometry, grid, of_fibers * (perfect * sky.continuum(grid) * area), optics.hermite_y)
    wave, flux = sky.lines()
    electrons = through.of_fibers(wave) * (through.electrons(wave) * exposure.exptime * flux * area)
    fibers = model.instrument.fibers(model.camera)
    entering = targets.entering(model.instrument, fibers, exposure.seeing)[:, None]
    objects = targets.spectra(fibers, grid) * entering * of_fibers * (perfect * atmosphere(grid, exposure.airmass))
    return (
        continuum + spread_lines(optics, geometry, wave, electrons),
        spread_continuum(geometry, grid, objects, optics.hermite_y),
    )


def _per_row(model: CameraModel, geometry: RowGeometry) -> Array:
    wave = geometry.wave
    return model.throughput.of_fibers(wave) * model.throughput.electrons(wave)


def _target_table(
    instrument: Instrument, exposure: Exposure, targets: Targets, fibers: NDArray[np.int32]
) -> NDArray[np.void]:
    table = np.zeros(len(fibers), dtype=[("FIBER", "i4"), ("KIND", "S4"), ("REDSHIFT", "f8"), ("ENTERS", "f8")])
    table["FIBER"] = fibers
    table["KIND"] = targets.kind[fibers].astype("S4")
    table["REDSHIFT"] = targets.redshift[fibers]
    table["ENTERS"] = targets.entering(instrument, fibers, exposure.seeing)
    return table


def _rng(model: CameraModel, exposure: Exposure, purpose: str) -> np.random.Generator:
    return generator(model.seed, exposure.night, exposure.expid, model.camera, purpose)
