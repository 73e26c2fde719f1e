"""Opens the store and hands out transactions in which the order of commits is the order of event ids."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from qlstream.io.filesystem import filesystem_type, is_network_filesystem
from qlstream.store.schema import SCHEMA_VERSION, about, metadata

BUSY_S = 30.0  # how long a writer waits for the others before the store counts as locked [s]
CHANNEL = "qlstream_events"  # of PostgreSQL's NOTIFY

T = TypeVar("T")


class StoreError(RuntimeError):
    """The store cannot be used as it is; the message says what to do."""


class StoreAway(RuntimeError):
    """The store is locked, full or gone for the moment; nothing was written, try again."""


class Store:
    """The event log with its tables.

    Attributes
    ----------
    url : as SQLAlchemy takes it; a worker opens the same store by it
    redux : production folder; paths in the tables are relative to it
    """

    def __init__(self, engine: Engine, redux: Path) -> None:
        self._engine = engine
        self.redux = redux
        self.url = engine.url.render_as_string(hide_password=False)

    @classmethod
    def open(cls, url: str | None, redux: Path) -> Store:
        """Open the store, making its tables if they are not there.

        Parameters
        ----------
        url : sqlite:///PATH or postgresql://USER@HOST/DATABASE; None is REDUX/qlstream.db

        Raises
        ------
        StoreError : the URL is wrong, SQLite would lie on a network file system, or the tables are of another version
        StoreAway : it cannot be reached or locked in time
        """
        redux = redux.resolve()
        parsed = _parse(url, redux)
        if parsed.get_backend_name() == "sqlite":
            engine = _sqlite_engine(parsed)
        else:
            engine = create_engine(
                parsed,
                pool_pre_ping=True,
                pool_size=5,
                max_overflow=20,
                json_serializer=_to_json,
                json_deserializer=orjson.loads,
                connect_args={"connect_timeout": 10},
            )
        store = cls(engine, redux)
        try:
            store._create_tables()
        except BaseException:
            store.close()
            raise
        return store

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that holds the append lock until its commit.

        Since only the holder of the lock draws event ids, a reader that has seen id n has seen all below n that
        will ever exist: ids may skip, events are never missed.

        Raises
        ------
        StoreAway : nothing was written
        """
        with self._transaction(writes=True) as conn:
            if not self.is_sqlite:
                conn.execute(text("SELECT pg_advisory_xact_lock(hashtext('qlstream ' || current_schema()))"))
            conn.info.pop("last_event_id", None)
            yield conn
            last = conn.info.pop("last_event_id", None)
            if last is not None and not self.is_sqlite:
                conn.execute(text("SELECT pg_notify(:channel, :id)"), {"channel": CHANNEL, "id": str(last)})

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction for reading; it sees a consistent state (SQLite) or committed rows (PostgreSQL).

        Raises
        ------
        StoreAway : it cannot be read now
        """
        with self._transaction(writes=False) as conn:
            yield conn

    def persist(self, work: Callable[[Connection], T], wait_s: float = 600.0) -> T:
        """Run `work` in one write transaction, again and again while the store is away.

        Parameters
        ----------
        work : gets the connection; may run several times, each time in a fresh transaction
        wait_s : give up after this long [s]

        Raises
        ------
        StoreAway : it did not come back in time
        """
        give_up = time.monotonic() + wait_s
        pause = 0.1
        while True:
            try:
                with self.write() as conn:
                    return work(conn)
            except StoreAway:
                if time.monotonic() + pause > give_up:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, writes: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect() as conn:
                conn = conn.execution_options(qlstream_writes=writes)
                with conn.begin():
                    yield conn
        except DBAPIError as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise StoreAway(f"store {self.name} is locked, full or away: {error.orig}") from error
            raise

    def _create_tables(self) -> None:
        if self.is_sqlite:
            self._switch_to_wal()
        with self.write() as conn:
            metadata.create_all(conn)
            for table in metadata.sorted_tables:  # those of tables that an older qlstream made
                for index in table.indexes:
                    index.create(conn, checkfirst=True)
            version = conn.execute(select(about.c.schema_version)).scalar_one_or_none()
            if version is None:
                conn.execute(insert(about).values(schema_version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self.name} has tables of version {version}, this qlstream works with {SCHEMA_VERSION}; "
                    "give another --store, or the qlstream that made it"
                )

    def _switch_to_wal(self) -> None:
        """WAL lets readers and one writer work at once; it is a property of the file.

        SQLite does not wait for its busy time-out here, so processes that start at once have to ask again.
        """
        give_up = time.monotonic() + BUSY_S
        while True:
            raw: Any = None
            try:
                raw = self._engine.raw_connection()
                if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    raw.execute("PRAGMA journal_mode = WAL")
                return
            except (DBAPIError, self._engine.dialect.loaded_dbapi.OperationalError) as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise StoreAway(f"store {self.name} cannot be opened: {error}") from error
                time.sleep(0.05)
            finally:
                if raw is not None:
                    raw.close()


def _parse(url: str | None, redux: Path) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(redux / "qlstream.db"))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(f"--store {url!r} is no URL of a store: {error}") from None
    if backend in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError("a PostgreSQL store needs psycopg: pip install 'qlstream[postgres]'")
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise StoreError(f"--store {url!r}: expected sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    return parsed


def _sqlite_engine(url: URL) -> Engine:
    path = Path(str(url.database)).resolve()
    if is_network_filesystem(path.parent):
        raise StoreError(
            f"{path} lies on a network file system ({filesystem_type(path.parent)}), where SQLite's locks do not hold; "
            "give --store postgresql://USER@HOST/DATABASE, or --store sqlite:///PATH on a local disk"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder of the store {path}: {error}") from error
    engine = create_engine(
        url.set(database=str(path)),
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
        pool_size=5,
        max_overflow=20,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver would begin late, and a read that turns into a write can lose
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        writes = conn.get_execution_options().get("qlstream_writes", False)
        conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()
