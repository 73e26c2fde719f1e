"""Tables of the store. The event log is the truth; the others are its present state, kept in the same transactions."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

SCHEMA_VERSION = 1  # a store of another version is refused

about = Table("about", metadata, Column("schema_version", Integer, primary_key=True))

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only a plain INTEGER PRIMARY KEY

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("time_utc", Float, nullable=False, doc="seconds since 1970-01-01 UTC"),
    Column("source", String(64), nullable=False, doc="who tells: ingest, engine, worker-1234 ..."),
    Column("kind", String(32), nullable=False),
    Column("night", Integer),
    Column("expid", Integer),
    Column("camera", String(8)),
    Column("attempt", Integer),
    Column("payload", JSON, nullable=False, default=dict, doc="at most 8 kB, NaN as null"),
    Index("events_of_exposure", "night", "expid"),
    sqlite_autoincrement=True,
)

exposures = Table(
    "exposures",
    metadata,
    Column("night", Integer, primary_key=True),
    Column("expid", Integer, primary_key=True),
    Column("version", Integer, nullable=False, default=1, doc="counts changes of the file's content"),
    Column("path", Text, nullable=False),
    Column(
        "identity",
        String(96),
        nullable=False,
        doc="content checksum of the file that this version stands for; empty before it was ready",
    ),
    Column("stamp", String(96), nullable=False, default="", doc="size and mtime when last looked at"),
    Column("state", String(12), nullable=False, doc="seen, waiting, ready, done, incomplete or failed"),
    Column("reason", Text, nullable=False, default=""),
    Column("flavor", String(12)),
    Column("obstype", String(16)),
    Column("program", String(80)),
    Column("tileid", Integer),
    Column("exptime", Float, doc="second"),
    Column("mjd", Float),
    Column("airmass", Float),
    Column("seeing", Float, doc="arcsec"),
    Column("instrument", String(16)),
    Column("cameras", String(64), doc="camword of the cameras in the file"),
    Column("missing", String(64), doc="camword of cameras that the header promises and the file lacks"),
    Column("fibermap", Text, doc="path of its fibermap"),
    Column("severity", Integer, doc="worst QASeverity of its cameras so far"),
    Column("seen_utc", Float),
    Column("ready_utc", Float),
    Column("done_utc", Float),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("night", Integer, nullable=False),
    Column("expid", Integer, nullable=False),
    Column("camera", String(8), nullable=False),
    Column("version", Integer, nullable=False),
    Column("flavor", String(12), nullable=False),
    Column("mjd", Float, nullable=False),
    Column("state", String(12), nullable=False, doc="ready, running, done, failed or superseded"),
    Column("attempt", Integer, nullable=False, default=0, doc="fence: results of any other attempt are refused"),
    Column("reason", Text, nullable=False, default=""),
    Column("severity", Integer, doc="worst QASeverity of its results"),
    Column("failures", Integer, nullable=False, default=0, doc="attempts that a retry followed"),
    Column("worker", Integer, doc="process id"),
    Column("ready_utc", Float),
    Column("started_utc", Float),
    Column("ended_utc", Float),
    Column("cpu_s", Float),
    Column("peak_mb", Float),
    UniqueConstraint("night", "expid", "camera", "version"),
    Index("jobs_by_state", "state", "night", "mjd"),
    Index("jobs_of_camera", "night", "camera", "mjd"),
    sqlite_autoincrement=True,
)

stages = Table(
    "stages",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("stage", String(48), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(12), nullable=False, doc="running, done, skipped or failed"),
    Column("reason", Text, nullable=False, default=""),
    Column("started_utc", Float),
    Column("wall_s", Float),
    Column("cpu_s", Float),
    Column("peak_mb", Float),
)

qa = Table(
    "qa",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("name", String(48), primary_key=True, doc="of the metric class, e.g. Get_RMS"),
    Column("stage", String(48), nullable=False),
    Column("night", Integer, nullable=False),
    Column("expid", Integer, nullable=False),
    Column("camera", String(8), nullable=False),
    Column("severity", Integer, nullable=False),
    Column("summary", Text, nullable=False, default=""),
    Column("metrics", JSON, nullable=False, doc="scalars"),
    Column("per_amp", JSON, nullable=False),
    Column("per_class", JSON, nullable=False),
    Column("checks", JSON, nullable=False, doc="list of Check as plain data"),
    Column("units", JSON, nullable=False),
    Column("vectors", Text, doc="npz file of per-fiber and other arrays, relative to the redux folder"),
    Column("wall_s", Float),
    Column("time_utc", Float, nullable=False),
    Index("qa_of_exposure", "night", "expid", "camera"),
)

products = Table(
    "products",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column(
        "kind",
        String(16),
        primary_key=True,
        doc="preproc, psf, qframe, qsky, qcframe, qfiberflat, qa, preview",
    ),
    Column("path", Text, nullable=False, doc="relative to the redux folder"),
    Column("bytes", BigInteger, nullable=False),
    Column("time_utc", Float, nullable=False),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("path", Text, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("mjd", Float),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", String(64), primary_key=True, doc="kind and fields, e.g. sky_r3_00000012"),
    Column("kind", String(24), nullable=False),
    Column("position", Integer, nullable=False, doc="of its kind in the chain"),
    Column("night", Integer, nullable=False),
    Column("expid", Integer),
    Column("camera", String(8), nullable=False, default=""),
    Column("state", String(12), nullable=False, doc="waiting, ready, running, done, failed or blocked"),
    Column("reason", Text, nullable=False, default=""),
    Column("attempt", Integer, nullable=False, default=0, doc="fence: the end of any other attempt is refused"),
    Column("lease_utc", Float, doc="until when its worker need not give a sign of life"),
    Column("started_utc", Float),
    Column("ended_utc", Float),
    Column("cpu_s", Float),
    Column("peak_mb", Float),
    Index("tasks_by_state", "state", "night", "position"),
)

task_inputs = Table(
    "task_inputs",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("port", String(24), primary_key=True),
    Column("maker", String(64), primary_key=True, doc="the task that makes this input"),
    Column("need", String(8), nullable=False, doc="all, any or prefer"),
    Index("task_inputs_by_maker", "maker"),
)
