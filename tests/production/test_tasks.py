"""States of the tasks: what the end of one means for the others, leases and fences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qlstream.store import tasks as ledger
from qlstream.store.database import Store
from qlstream.store.tasks import NewTask, StaleTask

NIGHT = 20260114


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(None, tmp_path) as opened:
        yield opened


def task(name: str, order: int, *inputs: tuple[str, str, str], done: bool = False) -> NewTask:
    return NewTask(name, name.partition("_")[0], order, NIGHT, inputs=inputs, done=done)


def states(store: Store, *names: str) -> list[str]:
    found = ledger.states_of(store, names)
    return [found[n] for n in names]


def finish(store: Store, state: str) -> str:
    claimed = ledger.claim(store, "test")
    assert claimed is not None
    close(store, claimed, state)
    return claimed.name


def close(store: Store, claimed: ledger.Claim, state: str) -> None:
    with store.write() as conn:
        ledger.close(conn, "test", claimed, state)


def test_a_task_is_ready_once_all_it_waits_for_is_done(store: Store) -> None:
    ledger.put(
        store, "test", [task("a_1", 0), task("a_2", 0), task("b_1", 1, ("x", "a_1", "all"), ("y", "a_2", "all"))]
    )
    assert states(store, "a_1", "a_2", "b_1") == ["ready", "ready", "waiting"]
    finish(store, "done")
    assert states(store, "b_1") == ["waiting"]
    finish(store, "done")
    assert states(store, "b_1") == ["ready"]


def test_a_failure_blocks_what_needs_it_and_nothing_else(store: Store) -> None:
    ledger.put(
        store,
        "test",
        [task("a_1", 0), task("a_2", 0), task("b_1", 1, ("x", "a_1", "all")), task("b_2", 1, ("x", "a_2", "all")),
         task("c_1", 2, ("x", "b_1", "all"))],
    )  # fmt: skip
    assert finish(store, "failed") == "a_1"
    assert states(store, "b_1", "c_1") == ["blocked", "blocked"]
    finish(store, "done")
    assert states(store, "b_2") == ["ready"]
    (reason,) = [row["reason"] for row in ledger.of_state(store, "blocked") if row["name"] == "b_1"]
    assert "a_1" in reason


@pytest.mark.parametrize(
    ("need", "ends", "expected"),
    [
        ("any", ("done", "failed"), "ready"),
        ("any", ("failed", "failed"), "blocked"),
        ("prefer", ("failed", "failed"), "ready"),
        ("prefer", ("done", None), "waiting"),
        ("all", ("done", "failed"), "blocked"),
    ],
)
def test_a_barrier_forgives_what_its_need_forgives(
    store: Store, need: str, ends: tuple[str | None, ...], expected: str
) -> None:
    inputs = tuple(("x", f"a_{n}", need) for n in range(2))
    ledger.put(store, "test", [task("a_0", 0), task("a_1", 0), task("n_1", 1, *inputs)])
    for end in ends:
        if end is not None:
            finish(store, end)
    assert states(store, "n_1") == [expected]


def test_a_retry_unblocks(store: Store) -> None:
    ledger.put(store, "test", [task("a_1", 0), task("b_1", 1, ("x", "a_1", "all"))])
    finish(store, "failed")
    ledger.retry(store, "test", "a_1")
    assert states(store, "a_1", "b_1") == ["ready", "waiting"]
    finish(store, "done")
    assert states(store, "b_1") == ["ready"]


def test_what_is_whole_on_disk_is_done_and_not_claimed(store: Store) -> None:
    ledger.put(store, "test", [task("a_1", 0, done=True), task("b_1", 1, ("x", "a_1", "all"))])
    claimed = ledger.claim(store, "test")
    assert claimed is not None
    assert claimed.name == "b_1"


def test_entering_a_night_again_lets_failed_tasks_run_again(store: Store) -> None:
    entries = [task("a_1", 0), task("b_1", 1, ("x", "a_1", "all"))]
    ledger.put(store, "test", entries)
    finish(store, "failed")
    ledger.put(store, "test", entries)
    assert states(store, "a_1", "b_1") == ["ready", "waiting"]


def test_a_task_whose_worker_is_gone_is_taken_over_and_its_old_end_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.put(store, "test", [task("a_1", 0)])
    monkeypatch.setattr(ledger, "LEASE_S", -1.0)
    first = ledger.claim(store, "test")
    second = ledger.claim(store, "test")
    assert first is not None
    assert second is not None
    assert (first.name, second.attempt) == ("a_1", first.attempt + 1)
    with pytest.raises(StaleTask):
        close(store, first, "done")
    close(store, second, "done")
    assert states(store, "a_1") == ["done"]


def test_calibrations_come_before_science(store: Store) -> None:
    ledger.put(store, "test", [task("sky_1", 5), task("psf_1", 1)])
    claimed = ledger.claim(store, "test")
    assert claimed is not None
    assert claimed.name == "psf_1"


def test_what_ended_is_not_given_back(store: Store) -> None:
    ledger.put(store, "test", [task("a_1", 0)])
    claimed = ledger.claim(store, "test")
    assert claimed is not None
    close(store, claimed, "done")
    ledger.release(store, "test", [claimed])
    assert states(store, "a_1") == ["done"]


def test_a_running_task_is_made_again_with_inputs_that_were_entered_meanwhile(store: Store) -> None:
    ledger.put(store, "test", [task("b_1", 1)])
    running = ledger.claim(store, "test")
    assert running is not None
    ledger.put(store, "test", [task("a_2", 0), task("b_1", 1, ("x", "a_2", "any"))])
    assert states(store, "a_2", "b_1") == ["ready", "running"]
    close(store, running, "done")
    assert states(store, "b_1") == ["done"]
    finish(store, "done")
    assert states(store, "a_2", "b_1") == ["done", "ready"]


def test_a_task_is_made_again_if_an_input_came_after_it_began(store: Store) -> None:
    ledger.put(store, "test", [task("b_1", 1)])
    running = ledger.claim(store, "test")
    assert running is not None
    ledger.put(store, "test", [task("a_2", 0), task("b_1", 1, ("x", "a_2", "any"))])
    finish(store, "done")
    close(store, running, "done")
    assert states(store, "a_2", "b_1") == ["done", "ready"]


def test_a_task_with_other_inputs_than_those_known_is_left_to_others(store: Store) -> None:
    ledger.put(store, "test", [task("a_1", 0, done=True), task("b_1", 1, ("x", "a_1", "all")), task("c_1", 2)])
    known: dict[str, set[ledger.Input]] = {"b_1": set(), "c_1": set()}
    claimed = ledger.claim(store, "test", knows=lambda name, inputs: known.get(name) == inputs)
    assert claimed is not None
    assert claimed.name == "c_1"
    assert ledger.claim(store, "test", knows=lambda name, inputs: known.get(name) == inputs) is None
    assert states(store, "b_1") == ["ready"]
