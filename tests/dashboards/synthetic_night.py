"""A made-up night, written through the store's own functions: for pages without a pipeline behind them.

`python synthetic_night.py REDUX [--cameras N] [--exposures N]` makes one to look at.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select, update

from qlstream.calibration.served import CalibrationUse
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import CLASSES
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost
from qlstream.store import exposures, jobs
from qlstream.store.database import Store
from qlstream.store.events import append
from qlstream.store.jobs import Job
from qlstream.store.results import JobRecord
from qlstream.store.schema import jobs as job_table
from qlstream.store.schema import stages as stage_table

NIGHT = 20260115
FIRST = 1001
SOURCE = "synthetic"
STAGES = {
    "Initialize": 0.05,
    "Preproc": 1.4,
    "Flexure": 0.6,
    "Extract_QP": 0.5,
    "ApplyFiberFlat_QP": 0.05,
    "SkySub_QP": 0.7,
}
OF_FLAVOR = {"zero": 2, "dark": 2, "arc": 4, "flat": 4, "science": 6}
EXPTIME = {"zero": 0.0, "dark": 300.0, "arc": 5.0, "flat": 120.0, "science": 900.0}
MJD = 61055.05  # of the first exposure

Fate = Callable[[int, str], str]  # (expid, camera) -> done, failed, running


class SyntheticNight:
    """Adds exposures to a store and processes them, with known faults.

    Parameters
    ----------
    faults : (kind, expid or None for all, camera or "" for all), kinds noisy-amp and lamp-off
    """

    def __init__(
        self,
        store: Store,
        cameras: Iterable[str],
        night: int = NIGHT,
        nspec: int = 40,
        faults: Iterable[tuple[str, int | None, str]] = (),
        previews: bool = True,
        side: int = 200,
    ) -> None:
        self.store, self.cameras, self.night, self.nspec = store, tuple(cameras), night, nspec
        self.faults, self.previews, self.side = tuple(faults), previews, side
        self.ranges = Ranges.load(config_path("qa", "quicklook"))
        self._flavor: dict[int, str] = {}

    def expose(
        self,
        expid: int,
        flavor: str = "science",
        program: str = "dark",
        tileid: int | None = 20871,
        missing: Iterable[str] = (),
    ) -> None:
        """A complete file arrives; its cameras become ready."""
        gone = tuple(missing)
        self._flavor[expid] = flavor
        facts = exposures.Facts(
            flavor=flavor,
            obstype=flavor.upper(),
            mjd=MJD + (expid - FIRST) * 0.0125,
            cameras=tuple(c for c in self.cameras if c not in gone),
            missing=gone,
            program=program if flavor == "science" else "",
            tileid=tileid if flavor == "science" else None,
            exptime=EXPTIME[flavor],
            airmass=1.21 if flavor == "science" else None,
            seeing=1.1 if flavor == "science" else None,
            instrument="mini",
        )
        with self.store.write() as conn:
            path = self._see(conn, expid)
            exposures.open_for_processing(conn, SOURCE, self.night, expid, path, facts, f"sum{expid}", "1 1")

    def never_complete(self, expid: int, reason: str = "gave up after 60 s: 1.2 of 2.0 MB") -> None:
        """A file that stays cut."""
        with self.store.write() as conn:
            self._see(conn, expid)
            exposures.mark_incomplete(conn, SOURCE, self.night, expid, "1 1", reason)

    def process(self, fate: Fate = lambda _e, _c: "done", most: int | None = None) -> list[Job]:
        """Take ready jobs and let each meet its fate; returns those that are left running."""
        running, count = [], 0
        while most is None or count < most:
            job = jobs.claim_next(self.store, SOURCE, jobs.Policy(0.0))
            if job is None:
                break
            count += 1
            end = fate(job.expid, job.camera)
            self._reduce(job, end)
            if end == "running":
                running.append(job)
        return running

    def beat(self, ready: int = 0) -> None:
        """A sign of life of the service that is not there."""
        with self.store.write() as conn:
            payload = {"state": "running", "busy": [], "ready": ready, "period_s": 15.0, "workers": 2}
            append(conn, "service.heartbeat", SOURCE, payload=payload)

    def _see(self, conn: Connection, expid: int) -> Path:
        path = Path(f"/raw/{self.night}/{expid:08d}/desi-{expid:08d}.fits.fz")
        exposures.see(conn, SOURCE, self.night, expid, path, "1 1", "")
        return path

    def _has(self, kind: str, job: Job) -> bool:
        return any(k == kind and e in (None, job.expid) and c in ("", job.camera) for k, e, c in self.faults)

    def _reduce(self, job: Job, end: str) -> None:
        record = JobRecord(self.store, job, f"worker-{job.id % 2}")
        rng = np.random.default_rng(zlib.crc32(f"{job.expid} {job.camera}".encode()))
        names = list(STAGES)[: OF_FLAVOR[job.flavor]]
        if end in ("failed", "running"):
            names = names[: int(rng.integers(1, max(2, len(names))))]
        for stage in names:
            record.stage_started(stage)
            if end == "running" and stage == names[-1]:
                return
            wall = STAGES[stage] * rng.uniform(0.8, 1.3)
            record.stage_done(stage, Cost(wall, 0.95 * wall, rng.uniform(300, 600)))
            for result in self._results(stage, job, rng):
                record.qa_result(stage, result, Cost(0.02, 0.02, 400.0))
        if end == "failed":
            reason = f"{names[-1]}: ValueError: HDU {job.camera.upper()} has no keyword GAINA [electron/ADU]"
            jobs.close(self.store, SOURCE, job.id, job.attempt, "failed", reason)
            return
        if job.flavor not in ("zero", "dark"):
            tree = Path(f"/calib/spec/{job.camera[1:]}/psf-{job.camera}.fits")
            record.calibration_used(CalibrationUse("PSF", tree))
        if self.previews:
            for kind, arrays in self._previews(job, rng).items():
                path = self.store.redux / "qlstream" / "previews" / f"{kind}-{job.expid}-{job.camera}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, **arrays)
                record.product(kind, path)
        jobs.close(self.store, SOURCE, job.id, job.attempt, "done", cpu_s=3.0, peak_mb=520.0)

    def _results(self, stage: str, job: Job, rng: np.random.Generator) -> list[QAResult]:
        arm, n = job.camera[0], self.nspec
        program = "dark" if job.flavor == "science" else ""
        where = {"camera": job.camera, "arm": arm, "flavor": job.flavor, "program": program}
        dark = 0.02 if self._has("lamp-off", job) else 1.0
        noise = dict(zip("ABCD", rng.normal({"b": 3.0, "r": 2.8, "z": 2.6}.get(arm, 3.0), 0.12, 4), strict=True))
        if self._has("noisy-amp", job):
            noise["C"] = 9.3
        lit = {"zero": 0.0004, "dark": 0.002, "arc": 0.12, "flat": 0.78 * dark, "science": 0.5}[job.flavor]
        level = {"arc": 900.0, "flat": 11000.0 * dark}.get(job.flavor, 150.0)
        found: list[QAResult] = []
        if stage == "Initialize":
            found = [
                QAResult(
                    "Check_HDUs", {"CHECKHDUS": 0.0, "MISSINGKEYS": 0.0, "FLATPIXELS": 0.01, "EXPTIME_FRACTION": 1.0}
                )
            ]
        elif stage == "Preproc":
            bias = dict(zip("ABCD", rng.normal(1990, 80, 4), strict=True))
            step = dict(zip("ABCD", np.abs(rng.normal(0.2, 0.1, 4)), strict=True))
            fraction = {a: abs(lit * rng.normal(1, 0.04)) for a in "ABCD"}
            small = {a: abs(rng.normal(0.0002, 0.0001)) for a in "ABCD"}
            rate = {a: float(rng.uniform(4, 14)) for a in "ABCD"}
            pattern = {a: abs(rng.normal(0.1, 0.04)) for a in "ABCD"}
            found = [
                QAResult(
                    "Bias_From_Overscan",
                    per_amp={"BIAS_AMP": bias, "BIAS_STEP_AMP": step},
                    units={"BIAS_AMP": "ADU", "BIAS_STEP_AMP": "ADU"},
                ),
                QAResult(
                    "Get_RMS",
                    per_amp={"NOISE_AMP": noise, "BIAS_PATNOISE": pattern},
                    units={"NOISE_AMP": "electron", "BIAS_PATNOISE": "electron"},
                    summary="read noise " + ", ".join(f"{a} {v:.2f}" for a, v in noise.items()),
                ),
                QAResult(
                    "Count_Pixels",
                    per_amp={"LITFRAC_AMP": fraction, "SATFRAC_AMP": small, "COSMICS_RATE": rate},
                    units={"COSMICS_RATE": "1/min"},
                ),
            ]
        elif stage == "Flexure":
            dx, dy = rng.normal(0, 0.12, 2)
            x, w = rng.normal(1.06, 0.01, n) + 0.06 * np.linspace(-1, 1, n) ** 2, rng.normal(1.14, 0.02, n)
            found = [
                QAResult(
                    "Trace_Shifts",
                    {"XYSHIFTS_X": dx, "XYSHIFTS_Y": dy, "SPREADDX": 0.11, "SPREADDY": 0.14, "RMSDX": 0.02},
                    per_fiber={"DX_FIB": rng.normal(dx, 0.02, n), "DY_FIB": rng.normal(dy, 0.02, n)},
                    units=dict.fromkeys(
                        ("XYSHIFTS_X", "XYSHIFTS_Y", "SPREADDX", "SPREADDY", "RMSDX", "DX_FIB", "DY_FIB"), "pixel"
                    ),
                ),
                QAResult(
                    "Calc_XWSigma",
                    {"XSIGMA": float(np.median(x)), "WSIGMA": float(np.median(w))},
                    per_fiber={"XSIGMA_FIB": x, "WSIGMA_FIB": w},
                    units=dict.fromkeys(("XSIGMA", "WSIGMA", "XSIGMA_FIB", "WSIGMA_FIB"), "pixel"),
                ),
            ]
        elif stage == "Extract_QP":
            values = level * rng.normal(1, 0.06, n)
            found = [
                QAResult(
                    "CountSpectralBins",
                    {"NGOODFIB": float(n), "GOODFIB_FRACTION": 1.0, "FLUXLEVEL": level, "MASKEDROWS": 0.001},
                    per_fiber={"LEVEL_FIB": values},
                    units={"FLUXLEVEL": "electron/row", "LEVEL_FIB": "electron/row"},
                )
            ]
        elif stage == "ApplyFiberFlat_QP":
            found = [
                QAResult(
                    "Sky_Continuum",
                    {"SKYCONT": 160.0, "SKYCONT_RATE": 0.18},
                    units={"SKYCONT": "electron/Angstrom", "SKYCONT_RATE": "electron/Angstrom/s"},
                )
            ]
        elif stage == "SkySub_QP":
            found = [
                QAResult(
                    "Sky_Residual", {"RESIDNOISE": 1.0 + rng.normal(0, 0.01), "SKYCHI2": 1.01 + rng.normal(0, 0.02)}
                ),
                self._snr(rng),
            ]
        return [result.graded(self.ranges, where) for result in found]

    def _snr(self, rng: np.random.Generator) -> QAResult:
        n = self.nspec
        magnitude = rng.uniform(18, 23.4, n)
        number = rng.choice([0, 1, 2, 5], n).astype(float)
        number[rng.random(n) < 0.1] = np.nan
        model = 12 * 10 ** (-0.4 * (magnitude - 20)) / np.sqrt(1 + 10 ** (-0.4 * (magnitude - 20)))
        return QAResult(
            "Calculate_SNR",
            {"FIDSNR": 1.7, "FIDSNR_ERROR": 0.04},
            per_class={"FIDSNR_TGT": dict.fromkeys(CLASSES[:3], 1.7)},
            per_fiber={
                "MEDIAN_SNR": model * rng.lognormal(0, 0.12, n),
                "MAGNITUDE": magnitude,
                "CLASS": number,
                "SNR_MODEL": model,
            },
            units={"FIDSNR": "per row", "FIDSNR_TGT": "per row", "MEDIAN_SNR": "per row", "MAGNITUDE": "r AB mag"},
        )

    def _previews(self, job: Job, rng: np.random.Generator) -> dict[str, dict[str, object]]:
        side, n, binning = self.side, self.nspec, 4
        y, x = np.mgrid[:side, :side].astype(np.float32)
        columns = np.linspace(0.06, 0.94, n) * side
        image = rng.normal(0, 3, (side, side)).astype(np.float32)
        for center in columns:
            image += (30 + 12 * np.sin(y / 9)) * np.exp(-0.5 * ((x - center - 2 * (y / side - 0.5) ** 2) / 0.7) ** 2)
        if self._has("noisy-amp", job):
            image[side // 2 :, : side // 2] += rng.normal(0, 9, (side - side // 2, side // 2))
        mask = (rng.random((side, side)) < 0.003).astype(np.uint8)
        full, half = side * binning, side * binning // 2
        boxes = [(0, half, 0, half), (half, full, 0, half), (0, half, half, full), (half, full, half, full)]
        low, high = {"b": (3600, 5800), "r": (5760, 7620)}.get(job.camera[0], (7520, 9824))
        wave = np.broadcast_to(np.linspace(low, high, 500, dtype=np.float32), (n, 500))
        sky = 60 + 400 * np.exp(-0.5 * ((wave - wave.mean()) / 4) ** 2)
        flux = rng.normal(40, 9, wave.shape) + 20 * np.sin(wave / 150 + np.arange(n)[:, None])
        ivar = np.full(wave.shape, 1 / 81.0, np.float32)
        ivar[:, 200:204] = 0
        fiber = np.arange(n) + n * int(job.camera[1:])
        return {
            "preview": {
                "image": image,
                "mask": mask,
                "binning": np.int32(binning),
                "shape": np.array((full, full), np.int32),
                "amp_names": np.array(list("ABCD")),
                "amp_boxes": np.array(boxes, np.int32),
                "traces": (binning * np.repeat(columns[:, None], 3, axis=1)).astype(np.float32),
            },
            "spectra": {
                "wave": wave,
                "flux": np.where(ivar > 0, flux, np.nan).astype(np.float32),
                "ivar": ivar,
                "sky": sky.astype(np.float32),
                "fiber": fiber.astype(np.int32),
                "bunit": np.str_("electron"),
                "binning": np.int32(1),
            },
        }


def spread_times(store: Store, cost: float = 3.4) -> None:
    """Give the done cameras times as if two workers had run the stages at their stated cost."""
    with store.write() as conn:
        free: dict[int, list[float]] = {}
        for job in conn.execute(
            select(job_table).where(job_table.c.state == "done").order_by(job_table.c.id)
        ).mappings():
            workers = free.setdefault(job["expid"], [job["ready_utc"] + 0.2] * 8)
            at = workers.index(min(workers))
            now = workers[at]
            conn.execute(
                update(job_table).where(job_table.c.id == job["id"]).values(started_utc=now, ended_utc=now + cost)
            )
            rows = conn.execute(
                select(stage_table).where(stage_table.c.job_id == job["id"]).order_by(stage_table.c.position)
            )
            for stage in rows.mappings().all():
                where = (stage_table.c.job_id == job["id"], stage_table.c.stage == stage["stage"])
                conn.execute(update(stage_table).where(*where).values(started_utc=now))
                now += (stage["wall_s"] or 0.0) + 0.02
            workers[at] = now + 0.1


def camera_names(count: int) -> list[str]:
    """The first `count` cameras, spectrograph by spectrograph."""
    return [f"{arm}{sp}" for sp in range(10) for arm in "brz"][:count]


def make_night(
    redux: Path, count: int = 30, exposures_count: int = 12, previews: bool = True, nspec: int = 40
) -> Store:
    """Twelve exposures with all that can go wrong; the last one is still being processed."""
    store = Store.open(None, redux)
    cameras = camera_names(count)
    last = FIRST + exposures_count
    noisy = "r3" if "r3" in cameras else cameras[-1]
    faults = [("noisy-amp", None, noisy), ("lamp-off", FIRST + 3, "")]
    night = SyntheticNight(store, cameras, faults=faults, previews=previews, nspec=nspec)
    flavors = ["zero", "dark", "arc", "flat", "flat"] + ["science"] * 20
    for expid in range(FIRST, last + 1):
        flavor = flavors[expid - FIRST]
        if expid == FIRST + 6:
            continue  # never arrived
        if expid == FIRST + 8:
            night.never_complete(expid)
            continue
        missing = cameras[4:5] if expid == FIRST + 7 and count > 4 else ()
        night.expose(expid, flavor, missing=missing)
        if expid < last:
            bad = cameras[len(cameras) // 2] if expid == FIRST + 9 and count > 1 else ""
            night.process(lambda _, camera, bad=bad: "failed" if camera == bad else "done")
    night.process(most=count // 2)
    night.process(lambda _e, _c: "running", most=min(2, count // 3))
    spread_times(store)
    night.beat(ready=count // 2)
    return store


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("redux", type=Path)
    parser.add_argument("--cameras", type=int, default=30)
    parser.add_argument("--exposures", type=int, default=12)
    given = parser.parse_args()
    began = time.perf_counter()
    make_night(given.redux, given.cameras, given.exposures)
    print(f"made in {time.perf_counter() - began:.1f} s")
