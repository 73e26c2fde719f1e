"""What a camera finds goes into the store at once, each thing with its event, only while the attempt is current."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from qlstream.calibration.served import CalibrationUse
from qlstream.pipeline.result import QAResult, QASeverity, plain
from qlstream.pipeline.runner import Cost
from qlstream.store.database import Store
from qlstream.store.events import append, shortened
from qlstream.store.exposures import refresh_state
from qlstream.store.jobs import Job, is_current, require_current
from qlstream.store.schema import calibrations, jobs, products, qa, stages
from qlstream.store.vectors import write_vectors

_WORST = 5  # checks that an event tells of; all of them are in the row


class JobRecord:
    """Writes what one attempt at a job finds; the Reporter of a worker.

    Each call is one transaction. While the store is locked or away it waits, so that a pause of the store costs time
    and no result; the camera's time-out ends the wait.

    Parameters
    ----------
    store : opened by the worker itself
    job : as claimed
    source : of the events, e.g. "worker-1234"

    Raises
    ------
    StaleAttempt : by every method, once another attempt has taken over
    """

    def __init__(self, store: Store, job: Job, source: str) -> None:
        self.store = store
        self.job = job
        self.source = source

    def is_current(self) -> bool:
        """Whether results of this attempt are still wanted."""
        with self.store.read() as conn:
            return is_current(conn, self.job.id, self.job.attempt)

    def stage_started(self, stage: str) -> None:
        def work(conn: Connection) -> None:
            self._require_current(conn)
            position = conn.execute(select(func.count()).where(stages.c.job_id == self.job.id)).scalar_one()
            conn.execute(
                insert(stages).values(
                    job_id=self.job.id, stage=stage, position=position, state="running", started_utc=time.time()
                )
            )
            self._append(conn, "stage.started", {"stage": stage})

        self.store.persist(work)

    def stage_done(self, stage: str, cost: Cost) -> None:
        def work(conn: Connection) -> None:
            self._require_current(conn)
            where = (stages.c.job_id == self.job.id, stages.c.stage == stage)
            conn.execute(update(stages).where(*where).values(state="done", **vars(cost)))
            self._append(conn, "stage.done", {"stage": stage, **vars(cost)})

        self.store.persist(work)

    def stage_skipped(self, stage: str, reason: str) -> None:
        def work(conn: Connection) -> None:
            self._require_current(conn)
            where = (stages.c.job_id == self.job.id, stages.c.stage == stage)
            conn.execute(delete(stages).where(*where))  # it may have started and then missed its calibration
            position = conn.execute(select(func.count()).where(stages.c.job_id == self.job.id)).scalar_one()
            conn.execute(
                insert(stages).values(
                    job_id=self.job.id, stage=stage, position=position, state="skipped", reason=reason
                )
            )
            self._append(conn, "stage.skipped", {"stage": stage, "reason": shortened(reason)})

        self.store.persist(work)

    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None:
        """Store a result; its arrays go to a file first, so that a row never points to nothing."""
        vectors = write_vectors(self.store.redux, self.job, result)
        content = result.to_json()
        worst = sorted((c for c in result.checks if c.severity > QASeverity.NORMAL), key=lambda c: -c.severity)
        payload = {
            "stage": stage,
            "name": result.name,
            "severity": int(result.severity),
            "summary": shortened(result.summary, 500),
            "checks": [
                {"metric": c.metric, "element": c.element, "severity": int(c.severity), "why": shortened(c.why, 200)}
                for c in worst[:_WORST]
            ],
        }

        def work(conn: Connection) -> None:
            self._require_current(conn)
            conn.execute(delete(qa).where(qa.c.job_id == self.job.id, qa.c.name == result.name))
            conn.execute(
                insert(qa).values(
                    job_id=self.job.id,
                    name=result.name,
                    stage=stage,
                    night=self.job.night,
                    expid=self.job.expid,
                    camera=self.job.camera,
                    severity=int(result.severity),
                    summary=result.summary,
                    metrics=content["metrics"],
                    per_amp=content["per_amp"],
                    per_class=content["per_class"],
                    checks=[plain({**vars(c), "severity": int(c.severity)}) for c in result.checks],
                    units=content["units"],
                    vectors=vectors,
                    wall_s=cost.wall_s,
                    time_utc=time.time(),
                )
            )
            worst_yet = select(func.max(qa.c.severity)).where(qa.c.job_id == self.job.id).scalar_subquery()
            conn.execute(update(jobs).where(jobs.c.id == self.job.id).values(severity=worst_yet))
            self._append(conn, "qa.result", payload)
            refresh_state(conn, self.source, self.job.night, self.job.expid)

        self.store.persist(work)

    def calibration_used(self, use: CalibrationUse) -> None:
        def work(conn: Connection) -> None:
            self._require_current(conn)
            where = (calibrations.c.job_id == self.job.id, calibrations.c.kind == use.kind)
            conn.execute(delete(calibrations).where(*where))
            values = {"kind": use.kind, "path": str(use.path), "origin": use.origin, "mjd": use.mjd}
            conn.execute(insert(calibrations).values(job_id=self.job.id, **values))
            self._append(conn, "calibration.used", values)

        self.store.persist(work)

    def product(self, kind: str, path: Path) -> None:
        """Note a product that has been written and renamed into place."""
        size = path.stat().st_size
        resolved = path.resolve()
        relative = resolved.relative_to(self.store.redux) if resolved.is_relative_to(self.store.redux) else resolved

        def work(conn: Connection) -> None:
            self._require_current(conn)
            where = (products.c.job_id == self.job.id, products.c.kind == kind)
            conn.execute(delete(products).where(*where))
            conn.execute(
                insert(products).values(
                    job_id=self.job.id, kind=kind, path=str(relative), bytes=size, time_utc=time.time()
                )
            )

        self.store.persist(work)

    def _require_current(self, conn: Connection) -> None:
        require_current(conn, self.job.id, self.job.attempt)

    def _append(self, conn: Connection, kind: str, payload: Mapping[str, object]) -> None:
        job = self.job
        append(conn, kind, self.source, job.night, job.expid, job.camera, job.attempt, payload)
