"""Stores to test with: SQLite always, PostgreSQL if a server can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from qlstream.store import exposures
from qlstream.store.database import Store

_HINT = (
    "no PostgreSQL server: set QLSTREAM_TEST_POSTGRES=postgresql://USER@HOST/DATABASE (of a role that may create "
    "schemas), or install the server's programs (initdb, pg_ctl), with which the tests start one of their own"
)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server: the given one, one that answers on this host, or one of our own."""
    given = os.environ.get("QLSTREAM_TEST_POSTGRES")
    for url in [given] if given else ["postgresql://127.0.0.1:5432/test"]:
        try:
            psycopg.connect(url, connect_timeout=3).close()
        except psycopg.OperationalError as error:
            if given:
                pytest.fail(f"QLSTREAM_TEST_POSTGRES does not answer: {error}")
        else:
            yield url
            return
    programs = _programs()
    if programs is None:
        pytest.skip(_HINT)
    yield from _own_server(programs, tmp_path_factory)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty store; every test gets its own, which is dropped afterwards."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/qlstream.db"
        return
    server = request.getfixturevalue("postgres_server")
    schema = f"qlstream_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield f"{server}{'&' if '?' in server else '?'}options={quote(f'-csearch_path={schema}', safe='')}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(url, tmp_path) as opened:
        yield opened


NIGHT = 20260115
AddExposure = Callable[..., int]


@pytest.fixture
def add_exposure(store: Store) -> AddExposure:
    """Opens an exposure for processing, as ingest does; returns its version."""

    def add(
        expid: int,
        flavor: str = "science",
        mjd: float | None = None,
        cameras: tuple[str, ...] = ("r0",),
        night: int = NIGHT,
        identity: str = "content",
    ) -> int:
        path = Path(f"/raw/{night}/{expid:08d}/desi-{expid:08d}.fits.fz")
        facts = exposures.Facts(flavor, flavor.upper(), expid / 100 if mjd is None else mjd, cameras)
        with store.write() as conn:
            if exposures.find(conn, night, expid) is None:
                exposures.see(conn, "test", night, expid, path, "1:1", "a new file")
            return exposures.open_for_processing(conn, "test", night, expid, path, facts, identity, "1:1")

    return add


@pytest.fixture
def another(url: str, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same store once more, as another process would."""
    opened: list[Store] = []

    def open_again() -> Store:
        opened.append(Store.open(url, tmp_path))
        return opened[-1]

    yield open_again
    for one in opened:
        one.close()


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    found = [Path(p).resolve().parent for p in [shutil.which("initdb")] if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


def _own_server(programs: Path, folders: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a temporary folder that only listens on a socket there; it refuses to run as root."""
    folder = folders.mktemp("postgresql")
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        for parent in (folder.parent, folder.parent.parent):
            parent.chmod(0o755)
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, capture_output=True, timeout=60)

    data, options = str(folder / "data"), f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    try:
        run(str(programs / "initdb"), "-D", data, "-U", "qlstream", "--auth=trust", "--no-sync")
        run(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{_HINT}; starting one failed: {getattr(error, 'stderr', error)}")
    try:
        yield f"postgresql://qlstream@/postgres?host={folder}"
    finally:
        run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
