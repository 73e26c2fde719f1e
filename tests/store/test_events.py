"""The event log takes what it should and refuses the rest."""

import math

import numpy as np
import pytest

from qlstream.store.events import append, events_after, last_event_id, shortened


def test_an_event_comes_back_as_it_was_told_with_nan_as_null(store):
    payload = {"x": math.nan, "y": [1, np.float32(2.5), math.inf], "text": "µ"}

    with store.write() as conn:
        event_id = append(conn, "qa.result", "worker-1", 20260115, 82, "r3", 2, payload)

    (event,) = events_after(store, 0)
    assert (event.id, event.source, event.kind) == (event_id, "worker-1", "qa.result")
    assert (event.night, event.expid, event.camera, event.attempt) == (20260115, 82, "r3", 2)
    assert event.payload == {"x": None, "y": [1, 2.5, None], "text": "µ"}
    assert last_event_id(store) == event_id


@pytest.mark.parametrize("kind", ["exposure.lost", "alert", "alert.", "", "Note.x"])
def test_an_unknown_kind_is_refused(store, kind):
    with store.write() as conn, pytest.raises(ValueError, match="is none of"):
        append(conn, kind, "test")


def test_a_payload_beyond_8_kb_is_refused(store):
    with store.write() as conn:
        append(conn, "note.test", "test", payload={"text": "x" * 8000})
        with pytest.raises(ValueError, match="payload of note.test is 9011 bytes, at most 8192 fit"):
            append(conn, "note.test", "test", payload={"text": "x" * 9000})


def test_events_are_read_on_from_the_last_seen(store):
    for n in range(5):
        with store.write() as conn:
            append(conn, "service.test", "test", payload={"n": n})

    first = events_after(store, 0, limit=3)
    rest = events_after(store, first[-1].id, limit=3)

    assert [e.payload["n"] for e in first + rest] == [0, 1, 2, 3, 4]


def test_long_text_is_shortened_for_a_payload():
    assert shortened("abc") == "abc"
    assert len(shortened("x" * 9999)) == 1500
