"""One camera of one exposure, from the light that enters the fibers to the raw image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.image import RawCamera
from qlstream.instrument import Arm, Instrument
from qlstream.simulate.cosmics import draw_cosmics
from qlstream.simulate.detector import Detector, build_detector, collect, read_out
from qlstream.simulate.electronics import with_pickup, with_swapped, without_readout
from qlstream.simulate.faults import Fault, amplifiers_hit, as_observed, fibers_hit
from qlstream.simulate.flexure import draw_flexure
from qlstream.simulate.headers import camera_header, exposure_header
from qlstream.simulate.lamps import arc_light, flat_light
from qlstream.simulate.optics import Optics, build_optics
from qlstream.simulate.render import RowGeometry, paint, row_geometry, spread_continuum, spread_lines
from qlstream.simulate.schedule import CLEAR, Exposure
from qlstream.simulate.seeds import generator
from qlstream.simulate.skylight import draw_sky
from qlstream.simulate.targets import Targets, assign_targets
from qlstream.simulate.throughput import Throughput, atmosphere, build_throughput
from qlstream.simulate.truth import Truth

Array = NDArray[np.float64]

GRID_STEP = 0.5  # of the spectra before they reach the CCD [Angstrom]
# How strong the faults are: factors but for steps and noise [ADU], displacements [pixel] and light [electron/second]
NOISY, WARM, DEFOCUS, STORM, DIM_LAMP, DIM_FIBER = 6.0, 50.0, 1.5, 20.0, 0.4, 1 / 3
JUMP, PICKUP, SHIFT, LEAK = 40.0, 6.0, 2.5, 0.2


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
    model: CameraModel | None = None,
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
    model : the camera, if it is not as `build_camera` makes it

    Raises
    ------
    KeyError : the instrument has no such camera
    """
    model = model or build_camera(instrument, camera, seed)
    faults = tuple(fault for fault in faults if fault.hits(exposure, camera))
    kinds = {fault.kind for fault in faults}
    exposure = as_observed(exposure, faults)
    if targets is None:
        targets = assign_targets(instrument, exposure, seed, faults)
    flexure = draw_flexure(camera, exposure, seed, DEFOCUS if "out-of-focus" in kinds else 1.0)
    if "shifted-traces" in kinds:
        flexure = flexure.displaced(SHIFT, SHIFT)
    optics = flexure.applied_to(model.optics)
    geometry = row_geometry(optics)

    passing = _passing(instrument, faults)[:, None]
    sky, target = (passing * light for light in _light(model, optics, geometry, exposure, targets, faults))
    image = paint(geometry, sky + target, optics.hermite_x, optics.shape[1])
    arm = model.detector.arm
    struck = arm.model_copy(update={"cosmic_rate": arm.cosmic_rate * STORM}) if "cosmic-storm" in kinds else arm
    cosmics = draw_cosmics(struck, exposure.exptime, _rng(model, exposure, "cosmics"))
    warm = WARM if "warm-ccd" in kinds else 1.0
    light = image + _leak(arm, exposure.exptime) if "light-leak" in kinds else image
    wells = collect(model.detector, light, exposure.exptime, _rng(model, exposure, "photons"), warm) + cosmics
    pix = read_out(
        model.detector,
        wells,
        _rng(model, exposure, "readout"),
        noise_factor=dict.fromkeys(amplifiers_hit(faults, "noisy-amp"), NOISY),
        dead=amplifiers_hit(faults, "dead-amp"),
        jump=dict.fromkeys(amplifiers_hit(faults, "bias-jump"), JUMP),
    )
    pix = _misread(pix, model.detector.amps, faults, _rng(model, exposure, "electronics"))

    primary = exposure_header(exposure, instrument, cameras or (camera,))
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
        fiberflat=passing * model.throughput.relative(geometry.wave),
        throughput=passing * _per_row(model, geometry),
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
    faults: Sequence[Fault],
) -> tuple[Array, Array]:
    """(sky or lamps, targets): (nspec, ny) expected electrons per row."""
    kinds = {fault.kind for fault in faults}
    nothing = np.zeros(geometry.wave.shape)
    if not kinds.isdisjoint({"lamp-off", "closed-shutter"}):
        return nothing, nothing
    lamp_time = exposure.exptime * (DIM_LAMP if "dim-lamp" in kinds else 1.0)
    grid = np.arange(optics.traces.wavemin - 1.0, optics.traces.wavemax + 1.0, GRID_STEP)
    through = model.throughput
    arm = model.detector.arm
    if exposure.flavor == "arc":
        dead = {(fault.part or "Ne").capitalize() for fault in faults if fault.kind == "dead-lamp"}
        wave, electrons = arc_light(generator(model.seed, exposure.night, exposure.expid, "arc"), lamp_time, dead)
        of_arm = through.of_arm(wave) / arm.throughput
        return spread_lines(optics, geometry, wave, through.of_fibers(wave) * of_arm * electrons), nothing
    if exposure.flavor == "flat":
        lamp = flat_light(arm, grid, lamp_time) * through.of_arm(grid) / arm.throughput
        return spread_continuum(geometry, grid, through.of_fibers(grid) * lamp, optics.hermite_y), nothing
    if exposure.flavor != "science":
        return nothing, nothing

    sky = draw_sky(generator(model.seed, exposure.night, exposure.expid, "sky"), exposure.moonlight)
    area = np.pi * (0.5 * model.instrument.fiber_diameter) ** 2
    of_fibers = through.of_fibers(grid)
    perfect = through.electrons(grid) * exposure.exptime
    continuum = spread_continuum(geometry, grid, of_fibers * (perfect * sky.continuum(grid) * area), optics.hermite_y)
    wave, flux = sky.lines()
    electrons = through.of_fibers(wave) * (through.electrons(wave) * exposure.exptime * flux * area)
    fibers = model.instrument.fibers(model.camera)
    entering = targets.entering(model.instrument, fibers, exposure.seeing)[:, None]
    through_air = atmosphere(grid, exposure.airmass) * (exposure.transparency / CLEAR)
    objects = targets.spectra(fibers, grid) * entering * of_fibers * (perfect * through_air)
    return (
        continuum + spread_lines(optics, geometry, wave, electrons),
        spread_continuum(geometry, grid, objects, optics.hermite_y),
    )


def _passing(instrument: Instrument, faults: Sequence[Fault]) -> Array:
    """(nspec,) fraction of its light that each fiber still brings."""
    passing = np.ones(instrument.nspec)
    passing[fibers_hit(faults, "dim-fibers")] = DIM_FIBER
    passing[fibers_hit(faults, "dead-fibers")] = 0.0
    return passing


def _leak(arm: Arm, exptime: float) -> NDArray[np.float32]:
    """(ny, nx) electrons of light that found a gap on one side of the CCD."""
    return np.broadcast_to(np.linspace(LEAK, 3 * LEAK, arm.nx, dtype=np.float32) * np.float32(exptime), arm.shape)


def _misread(
    pix: NDArray[np.uint16], amps: Sequence[Amp], faults: Sequence[Fault], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """The raw image after what the electronics do to it."""
    by_name = {amp.name: amp for amp in amps}
    noisy = amplifiers_hit(faults, "pickup")
    if noisy:
        pix = with_pickup(pix, [by_name[name] for name in sorted(noisy)], PICKUP, rng)
    for fault in faults:
        if fault.kind == "swapped-amps":
            pair = (fault.part or "AB").upper()
            pix = with_swapped(pix, by_name[pair[0]], by_name[pair[1]])
        elif fault.kind == "no-readout":
            pix = without_readout(pix)
    return pix


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
