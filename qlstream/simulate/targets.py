"""What the fibers look at: a fibermap and, for every fiber, the spectrum that its fluxes come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fibermaptable import COLUMNS, desiname
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.positions import position_status
from qlstream.instrument import Instrument
from qlstream.numeric.dust import transmission
from qlstream.simulate import templates
from qlstream.simulate.faults import Fault
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.seeds import generator
from qlstream.simulate.throughput import build_fibers, fiber_fraction

Array = NDArray[np.float64]

MM_PER_DEGREE = 254.0  # plate scale of the focal plane
MISPLACED = 1.2  # distance of a mispositioned fiber from its target [arcsec]
_DESI_BIT = {"LRG": 0, "ELG": 1, "QSO": 2, "BGS": 60, "MWS": 61, "SKY": 32, "STD": 33}
_STD_BRIGHT = 35
_MIX = {
    "science-dark": (("ELG", 0.4), ("LRG", 0.3), ("QSO", 0.3)),
    "science-gray": (("ELG", 1.0),),
    "science-bright": (("BGS", 0.7), ("MWS", 0.3)),
}
# per class: range of r magnitude, redshift, half-light radius [arcsec]
_MAGNITUDE = {"ELG": (21.8, 23.4), "LRG": (20.0, 21.8), "QSO": (18.0, 22.5), "BGS": (16.0, 19.8), "MWS": (16.0, 19.0)}
_STD_MAGNITUDE = {"science-dark": (16.5, 18.5), "science-gray": (16.5, 18.5), "science-bright": (15.7, 17.5)}
_OBSCONDITIONS = {"science-dark": 1, "science-gray": 2, "science-bright": 4}
_REDSHIFT = {"ELG": (0.6, 1.6), "LRG": (0.4, 1.0), "QSO": (0.3, 3.2), "BGS": (0.02, 0.5)}
_HALF_LIGHT = {"ELG": (0.3, 0.6), "LRG": (0.5, 1.2), "BGS": (0.6, 2.5)}


@dataclass(frozen=True)
class Targets:
    """Objects behind all fibers of the instrument, in FIBER order.

    Attributes
    ----------
    rows : (nfiber,) COLUMNS, the fibermap
    kind : (nfiber,) ELG, LRG, QSO, BGS, MWS, STD, SKY or "" (nothing)
    redshift : (nfiber,) float64; 0 for stars
    shape : (nfiber,) float64, the template's own parameter: temperature, slope or equivalent width
    scale : (nfiber,) float64, factor on the template to give 1e-17 erg/s/cm2/Angstrom
    half_light : (nfiber,) float64 [arcsec]
    """

    rows: NDArray[np.void]
    kind: NDArray[np.str_]
    redshift: Array
    shape: Array
    scale: Array
    half_light: Array

    def spectra(self, fibers: NDArray[np.integer], wave: Array) -> Array:  # type: ignore[type-arg]
        """(n, nwave) flux [1e-17 erg/s/cm2/Angstrom] above the atmosphere, of the objects of these FIBER numbers."""
        flux = np.zeros((len(fibers), len(wave)))
        for i, fiber in enumerate(fibers):
            if self.scale[fiber] > 0:
                light = _template(str(self.kind[fiber]), wave, float(self.redshift[fiber]), float(self.shape[fiber]))
                flux[i] = self.scale[fiber] * light * transmission(wave, float(self.rows["EBV"][fiber]))
        return flux

    def entering(self, instrument: Instrument, fibers: NDArray[np.integer], seeing: float) -> Array:  # type: ignore[type-arg]
        """(n,) fraction of each object's light that enters its fiber, positioner offset included."""
        offset = np.hypot(self.rows["DELTA_X"][fibers], self.rows["DELTA_Y"][fibers]) / MM_PER_DEGREE * 3600.0
        return fiber_fraction(instrument, seeing, offset, self.half_light[fibers])


def assign_targets(instrument: Instrument, exposure: Exposure, seed: int, faults: Sequence[Fault] = ()) -> Targets:
    """Targets of a science exposure's tile: at least 5 (8 %) sky fibers and 3 (5 %) standard stars per spectrograph.

    The tile decides the objects; the exposure decides how well the positioners hit them (5 micron).
    In calibration exposures all fibers look at the lamps: OBJTYPE is TGT, without target bits or fluxes.
    """
    nfiber = instrument.nspec * (max(instrument.spectrographs) + 1)
    rows = np.zeros(nfiber, dtype=COLUMNS)
    kind = np.full(nfiber, "", dtype="U3")
    for spectrograph in instrument.spectrographs:
        fibers = spectrograph * instrument.nspec + np.arange(instrument.nspec)
        _place(rows, instrument, spectrograph, seed)
        if exposure.flavor == "science":
            kind[fibers] = _draw_kinds(instrument, exposure, spectrograph, seed)
    keep = np.isin(np.arange(nfiber) // instrument.nspec, instrument.spectrographs)
    redshift, shape, scale, half_light = (np.zeros(nfiber) for _ in range(4))
    rows["OBJTYPE"] = "TGT"
    rows["EXPTIME"] = exposure.exptime
    if exposure.flavor == "science":
        rng = generator(seed, exposure.tileid, "targets")
        for fiber in np.flatnonzero(keep):
            _describe(rows, int(fiber), str(kind[fiber]), exposure, rng, redshift, shape, scale, half_light)
        _point_positioners(rows, instrument, exposure, seed, faults)
    return Targets(rows, kind, redshift, shape, scale, half_light)


def fibermap_of(targets: Targets, instrument: Instrument, exposure: Exposure, header: dict[str, object]) -> Fibermap:
    """The fibermap of an exposure, with the cards that survey tools leave in it."""
    keep = np.isin(targets.rows["PETAL_LOC"], instrument.spectrographs) & (targets.rows["TARGETID"] != 0)  # placed
    meta = {**tile_cards(exposure), "GUIDEFIL": "MISSING", "COORDFIL": "MISSING"}
    cards = ("EXPID", "NIGHT", "EXPTIME", "MJD-OBS", "DATE-OBS", "OBSTYPE", "FLAVOR", "PROGRAM", "AIRMASS")
    return Fibermap(targets.rows[keep], {**meta, **{key: header[key] for key in cards if key in header}})


def tile_cards(exposure: Exposure) -> dict[str, object]:
    """What fiberassign says of the exposure's tile."""
    program = exposure.kind.partition("-")[2] or "dark"
    return {
        "TILEID": exposure.tileid, "TILERA": exposure.tilera, "TILEDEC": exposure.tiledec, "FIELDROT": 0.0,
        "FA_PLAN": "2026-01-01", "FA_VER": "5.0.0", "FA_SURV": "main", "FAFLAVOR": f"main{program}", "SURVEY": "main",
        "FAPRGRM": program, "GOALTIME": 1000.0, "GOALTYPE": program.upper(),
    }  # fmt: skip


def _place(rows: NDArray[np.void], instrument: Instrument, spectrograph: int, seed: int) -> None:
    """Numbers and focal-plane places of the fibers of one petal, and the status that the hardware gives them."""
    nspec = instrument.nspec
    fibers = spectrograph * nspec + np.arange(nspec)
    rng = generator(seed, f"sp{spectrograph}", "places")
    device = rng.permutation(max(524, nspec))[:nspec]
    angle = np.radians(36.0 * (spectrograph + rng.uniform(-0.48, 0.48, nspec)) - 90.0)
    radius = np.sqrt(rng.uniform(40.0**2, 405.0**2, nspec))
    rows["FIBER"][fibers] = fibers
    rows["PETAL_LOC"][fibers] = spectrograph
    rows["DEVICE_LOC"][fibers] = device
    rows["LOCATION"][fibers] = 1000 * spectrograph + device
    rows["FIBERASSIGN_X"][fibers] = rows["FIBER_X"][fibers] = radius * np.cos(angle)
    rows["FIBERASSIGN_Y"][fibers] = rows["FIBER_Y"][fibers] = radius * np.sin(angle)
    rows["TARGETID"][fibers] = -1 - fibers
    state = build_fibers(instrument, spectrograph, seed)
    rows["FIBERSTATUS"][fibers] |= np.where(state.is_broken, int(FiberMask.BROKENFIBER), 0)
    rows["FIBERSTATUS"][fibers] |= np.where(state.is_low, int(FiberMask.LOWTRANSMISSION), 0)
    rows["FIBERSTATUS"][fibers] |= np.where(state.is_stuck, int(FiberMask.STUCKPOSITIONER), 0)


def _draw_kinds(instrument: Instrument, exposure: Exposure, spectrograph: int, seed: int) -> NDArray[np.str_]:
    rng = generator(seed, exposure.tileid, spectrograph, "kinds")
    state = build_fibers(instrument, spectrograph, seed)
    nspec = instrument.nspec
    kinds = np.full(nspec, "", dtype="U3")
    usable = np.flatnonzero(~(state.is_broken | state.is_low | state.is_stuck))
    usable = usable[rng.permutation(len(usable))]
    nsky, nstd = max(5, round(0.08 * nspec)), max(3, round(0.05 * nspec))
    kinds[usable[:nsky]] = "SKY"
    kinds[usable[nsky : nsky + nstd]] = "STD"
    names, shares = zip(*_MIX[exposure.kind], strict=True)
    rest = usable[nsky + nstd :]
    kinds[rest] = rng.choice(names, len(rest), p=shares)
    kinds[state.is_low] = names[0]
    return kinds


def _describe(
    rows: NDArray[np.void],
    fiber: int,
    kind: str,
    exposure: Exposure,
    rng: np.random.Generator,
    redshift: Array,
    shape: Array,
    scale: Array,
    half_light: Array,
) -> None:
    """Fill one row of the fibermap, and the parameters of its spectrum, from the class of its target."""
    row = rows[fiber]
    row["TARGET_RA"], row["TARGET_DEC"] = _sky_position(row["FIBERASSIGN_X"], row["FIBERASSIGN_Y"], exposure)
    row["SUBPRIORITY"] = rng.uniform()
    row["LAMBDA_REF"], row["REF_EPOCH"], row["PHOTSYS"], row["RELEASE"] = 5400.0, 2020.0, b"S", 9010
    row["OBSCONDITIONS"] = _OBSCONDITIONS[exposure.kind]
    row["EBV"] = rng.uniform(0.01, 0.06)
    row["BRICKID"], row["BRICK_OBJID"] = 300000 + exposure.tileid % 100000, fiber
    row["BRICKNAME"] = (
        f"{row['TARGET_RA'] * 10:04.0f}{'mp'[int(row['TARGET_DEC'] >= 0)]}{abs(row['TARGET_DEC']) * 10:03.0f}"
    )
    row["DESINAME"] = desiname(row["TARGET_RA"], row["TARGET_DEC"])[0]
    if kind == "":
        row["OBJTYPE"] = b"BAD"
        row["FIBERSTATUS"] |= int(FiberMask.UNASSIGNED)
        return
    row["TARGETID"] = (9010 << 42) + (int(row["BRICKID"]) << 22) + fiber
    row["DESI_TARGET"] = np.int64(1) << _DESI_BIT[kind]
    row["FA_TYPE"] = {"SKY": 4, "STD": 3}.get(kind, 1)
    row["FA_TARGET"] = row["DESI_TARGET"]
    if kind == "SKY":
        row["OBJTYPE"] = b"SKY"
        return
    low, high = _STD_MAGNITUDE[exposure.kind] if kind == "STD" else _MAGNITUDE[kind]
    magnitude = low + (high - low) * rng.uniform() ** 0.6  # faint ones are more common
    redshift[fiber] = rng.uniform(*_REDSHIFT[kind]) if kind in _REDSHIFT else 0.0
    shape[fiber] = {
        "ELG": rng.uniform(30.0, 100.0),
        "BGS": rng.choice([0.0, rng.uniform(5.0, 40.0)]),
        "QSO": rng.uniform(-1.9, -1.2),
        "MWS": rng.uniform(5000.0, 7000.0),
        "STD": rng.uniform(5900.0, 7200.0),
    }.get(kind, 0.0)
    half_light[fiber] = rng.uniform(*_HALF_LIGHT[kind]) if kind in _HALF_LIGHT else 0.0
    spectrum = _template(kind, templates.BAND_WAVE, float(redshift[fiber]), float(shape[fiber]))
    spectrum = spectrum * transmission(templates.BAND_WAVE, float(row["EBV"]))
    unit = templates.band_flux(spectrum)
    scale[fiber] = 10.0 ** (0.4 * (22.5 - magnitude)) / unit["R"]
    _write_fluxes(row, {band: value * scale[fiber] for band, value in unit.items()}, float(half_light[fiber]))
    _write_class(row, kind, exposure, rng, float(half_light[fiber]))


def _write_fluxes(row: np.void, flux: dict[str, float], half_light: float) -> None:
    """Fluxes of the imaging survey; fiber fluxes are for its 1 arcsec seeing and 1.5 arcsec fibers."""
    sigma2 = (1.0 / 2.3548) ** 2 + (half_light / 1.1774) ** 2
    inside = 1.0 - np.exp(-0.5 * 0.75**2 / sigma2)
    for band, value in flux.items():
        row[f"FLUX_{band}"] = value
        row[f"FLUX_IVAR_{band}"] = 1.0 / (0.05**2 + (0.01 * value) ** 2)
        row[f"FIBERFLUX_{band}"] = row[f"FIBERTOTFLUX_{band}"] = value * inside
    row["FLUX_W1"], row["FLUX_W2"] = 1.2 * flux["Z"], 0.9 * flux["Z"]
    row["FLUX_IVAR_W1"], row["FLUX_IVAR_W2"] = 1.0, 0.3


def _write_class(row: np.void, kind: str, exposure: Exposure, rng: np.random.Generator, half_light: float) -> None:
    row["MORPHTYPE"] = b"PSF" if half_light == 0 else b"EXP"
    row["SHAPE_R"], row["SERSIC"] = half_light, 0.0 if half_light == 0 else 1.0
    row["PRIORITY"] = row["PRIORITY_INIT"] = {"QSO": 3400, "LRG": 3200, "ELG": 3100, "BGS": 2100}.get(kind, 1500)
    row["NUMOBS_INIT"] = 4 if kind == "QSO" else 1
    if kind == "BGS":
        row["BGS_TARGET"] = 1 << 1
    if kind == "MWS":
        row["MWS_TARGET"] = 1
    if kind == "STD" and exposure.kind == "science-bright":
        row["DESI_TARGET"] = np.int64(1) << _STD_BRIGHT
    if kind in ("STD", "MWS"):
        g, r, z = (22.5 - 2.5 * np.log10(row[f"FLUX_{band}"]) for band in "GRZ")
        row["REF_CAT"], row["REF_ID"] = b"G3", rng.integers(1, 2**60)
        row["GAIA_PHOT_G_MEAN_MAG"] = r + 0.1 * (g - r)
        row["GAIA_PHOT_BP_MEAN_MAG"], row["GAIA_PHOT_RP_MEAN_MAG"] = g - 0.1, 0.5 * (r + z) - 0.3
        row["PMRA"], row["PMDEC"], row["PARALLAX"] = rng.normal(0.0, 8.0), rng.normal(0.0, 8.0), rng.uniform(0.2, 2.0)


def _point_positioners(
    rows: NDArray[np.void], instrument: Instrument, exposure: Exposure, seed: int, faults: Sequence[Fault]
) -> None:
    """Where the positioners really are: some micron off, so FIBER_X/Y, and DELTA_X/Y = wanted less real place.

    A fiber that stands wrong does so for all arms of its spectrograph.
    """
    rng = generator(seed, exposure.night, exposure.expid, "positioners")
    rows["DELTA_X"], rows["DELTA_Y"] = rng.normal(0.0, 0.0035, (2, len(rows)))
    for fault in faults:
        if fault.kind == "mispositioned" and fault.hits(exposure):
            petals = instrument.spectrographs if fault.camera is None else (instrument.spectrograph(fault.camera),)
            for petal in petals:
                rows["DELTA_X"][petal * instrument.nspec + np.array(fault.fibers)] += MISPLACED / 3600.0 * MM_PER_DEGREE
    rows["FIBER_X"] = rows["FIBERASSIGN_X"] - rows["DELTA_X"]
    rows["FIBER_Y"] = rows["FIBERASSIGN_Y"] - rows["DELTA_Y"]
    rows["FIBER_RA"], rows["FIBER_DEC"] = _sky_position(rows["FIBER_X"], rows["FIBER_Y"], exposure)
    placed = rows["TARGETID"] != 0
    status = position_status(rows["FIBER_X"], rows["FIBER_Y"], rows["DELTA_X"], rows["DELTA_Y"])
    rows["FIBERSTATUS"][placed] |= status[placed]
    rows["PLATE_RA"], rows["PLATE_DEC"] = rows["TARGET_RA"], rows["TARGET_DEC"]
    rows["NUM_ITER"] = 2


def _sky_position(x: Array, y: Array, exposure: Exposure) -> tuple[Array, Array]:
    """Of places on the focal plane in CS5: x to the east, y to the south [mm] -> [degree]."""
    dec = exposure.tiledec - y / MM_PER_DEGREE
    return exposure.tilera + x / MM_PER_DEGREE / np.cos(np.radians(exposure.tiledec)), dec


def _template(kind: str, wave: Array, redshift: float, shape: float) -> Array:
    rest = wave / (1.0 + redshift)
    if kind == "ELG":
        return templates.star_forming_galaxy(rest, shape)
    if kind == "LRG":
        return templates.old_galaxy(rest)
    if kind == "BGS":
        blend = templates.old_galaxy(rest) / templates.old_galaxy(np.array([5500.0]))[0]
        return blend + 0.3 * templates.star_forming_galaxy(rest, shape) if shape > 0 else blend
    if kind == "QSO":
        return templates.quasar(rest, shape)
    return templates.star(rest, shape)
