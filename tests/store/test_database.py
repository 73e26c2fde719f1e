"""Opening a store, and what its transactions promise when many write at once."""

import subprocess
import sys
import threading

import psycopg
import pytest
from sqlalchemy import inspect, select, text, update

from qlstream.store import database
from qlstream.store.database import Store, StoreAway, StoreError
from qlstream.store.events import append, events_after, last_event_id
from qlstream.store.schema import about, events

WRITER = """
import random, sys, time
from pathlib import Path
from qlstream.store.database import Store
from qlstream.store.events import append
url, folder, source = sys.argv[1:]
random.seed(source)
with Store.open(url, Path(folder)) as store:
    for n in range(40):
        try:
            with store.write() as conn:
                append(conn, "note.test", source, payload={"n": n})
                time.sleep(random.choice([0, 0.001, 0.004]))
                append(conn, "note.test", source, payload={"n": n + 0.5})
                if n % 10 == 7:
                    raise KeyError("a writer that gives up its transaction")
        except KeyError:
            pass
"""


def test_a_reader_of_ids_above_the_last_seen_misses_nothing_of_several_writing_processes(store, url, tmp_path):
    command = [sys.executable, "-c", WRITER, url, str(tmp_path)]
    writers = [subprocess.Popen([*command, f"writer-{i}"]) for i in range(4)]

    seen, last = [], 0
    while True:
        over = all(writer.poll() is not None for writer in writers)
        new = events_after(store, last, limit=50)
        if not new and over:
            break
        seen += new
        last = new[-1].id if new else last

    assert [writer.returncode for writer in writers] == [0] * 4
    assert len({e.id for e in seen}) == len(seen) == 4 * 36 * 2  # of 40 transactions each, 4 were given up
    with store.read() as conn:
        assert [e.id for e in seen] == list(conn.execute(select(events.c.id).order_by(events.c.id)).scalars())
    for i in range(4):
        own = [e.payload["n"] for e in seen if e.source == f"writer-{i}"]
        assert own == sorted(own)


def test_no_update_is_lost_between_threads_that_read_then_write(store, another):
    with store.write() as conn:
        conn.execute(update(about).values(schema_version=0))

    def count_up(own):
        for _ in range(50):
            with own.write() as conn:
                now = conn.execute(select(about.c.schema_version)).scalar_one()
                conn.execute(update(about).values(schema_version=now + 1))

    with store.write() as conn:
        conn.execute(update(about).values(schema_version=1))
    stores = [another() for _ in range(4)]
    threads = [threading.Thread(target=count_up, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.read() as conn:
        assert conn.execute(select(about.c.schema_version)).scalar_one() == 1 + 4 * 50


def test_a_transaction_that_breaks_leaves_nothing(store):
    def break_off():
        with store.write() as conn:
            append(conn, "note.test", "test")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()

    assert last_event_id(store) == 0


def test_many_processes_may_open_a_new_store_at_once(url, tmp_path):
    opened, errors = [], []

    def open_it():
        try:
            opened.append(Store.open(url, tmp_path))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in opened:
        store.close()

    assert errors == []


def test_a_locked_store_is_away_and_persist_waits_for_it(store, another, monkeypatch):
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    holder, waiting = another(), another()
    holds, release = threading.Event(), threading.Event()

    def hold():
        with holder.write() as conn:
            append(conn, "note.test", "holder")
            holds.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    try:
        if waiting.is_sqlite:  # PostgreSQL's writers wait in a queue instead
            with pytest.raises(StoreAway, match="locked"), waiting.write():
                pass
        threading.Timer(0.3, release.set).start()
        persisted = waiting.persist(lambda conn: append(conn, "note.test", "waiting"), wait_s=10)
    finally:
        release.set()
        thread.join()

    assert [e.source for e in events_after(store, 0)] == ["holder", "waiting"]
    assert persisted == last_event_id(store)


def test_persist_gives_up_in_the_end(store):
    def away(_):
        raise StoreAway("away")

    with pytest.raises(StoreAway):
        store.persist(away, wait_s=0.0)


def test_a_store_of_another_version_is_refused(store, url, tmp_path):
    with store.write() as conn:
        conn.execute(update(about).values(schema_version=99))

    with pytest.raises(StoreError, match="tables of version 99, this qlstream works with 1; give another --store"):
        Store.open(url, tmp_path)


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_names_no_store_is_refused(url, tmp_path):
    with pytest.raises(StoreError, match="--store"):
        Store.open(url, tmp_path)


def test_sqlite_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "filesystem_type", lambda _: "nfs4")
    monkeypatch.setattr(database, "is_network_filesystem", lambda _: True)

    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*give --store postgresql://"):
        Store.open(None, tmp_path)


def test_a_server_that_is_not_there_is_away(tmp_path):
    with pytest.raises(StoreAway, match=r"store postgresql\+psycopg://nobody@127.0.0.1:1/none is locked, full or away"):
        Store.open("postgresql://nobody@127.0.0.1:1/none", tmp_path)


def test_sqlite_works_in_wal_with_normal_sync(tmp_path):
    with Store.open(None, tmp_path) as store, store.read() as conn:
        assert conn.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert conn.execute(text("PRAGMA synchronous")).scalar() == 1
        assert (tmp_path / "qlstream.db").exists()


def test_postgresql_is_notified_with_the_last_id_only(store, url):
    if store.is_sqlite:
        pytest.skip("SQLite has no NOTIFY; its readers poll")
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {database.CHANNEL}")

        with store.write() as conn:
            append(conn, "note.test", "test")
            last = append(conn, "note.test", "test")
        heard = [notice.payload for notice in listener.notifies(timeout=5, stop_after=1)]

    assert heard == [str(last)]


def test_a_store_of_before_gets_the_indexes_that_it_lacks(store, another):
    with store.write() as conn:
        conn.execute(text("DROP INDEX task_inputs_by_maker"))
    with another().read() as conn:
        names = {index["name"] for index in inspect(conn).get_indexes("task_inputs")}
    assert "task_inputs_by_maker" in names
