"""Decides about one exposure: wait, process, or give up; every decision is an event with its reason."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import RowMapping

from qlstream.ingest.completeness import content_identity, find_sidecar, read_facts
from qlstream.ingest.fibermaps import exposure_stamp, is_awaited, obtain_fibermap
from qlstream.ingest.names import Place
from qlstream.ingest.structure import read_structure
from qlstream.io.errors import BadFile
from qlstream.io.filesystem import is_network_filesystem
from qlstream.logging import exposure_log
from qlstream.settings import IngestSettings
from qlstream.store import exposures
from qlstream.store.database import Store
from qlstream.store.exposures import Facts

_BRIEF_S = 0.3  # a file with all promised cameras must not change for this long: another HDU may follow them [s]
_TELL_S = 5.0  # the progress of a growing file is told this often [s]
_SETTLE_S, _SETTLE_NETWORK_S = 2.0, 10.0  # if settle_s is unset; network file systems tell sizes late [s]
_OPENED, _CLOSED = ("ready", "done"), ("ready", "done", "failed", "incomplete")


@dataclass
class _Clock:
    """Since when a raw file is as it is. Only clocks are kept in memory: a restart merely waits anew."""

    stamp: str
    since: float
    whole_since: float | None = None
    sums: tuple[str, str] | None = None
    told: float = float("-inf")


@dataclass(frozen=True)
class _Decision:
    """What is to be done with an exposure.

    Attributes
    ----------
    look_again : after this time, if it waits [s]
    settling : it waits only to be sure that nothing follows
    """

    kind: Literal["wait", "give up", "fail", "ready", "same"]
    reason: str
    look_again: float | None = None
    settling: bool = False
    facts: Facts | None = None
    identity: str = ""


class Looker:
    """Looks at the exposures of one raw folder. It blocks; one look at a time per exposure.

    Parameters
    ----------
    raw, redux : folders of raw exposures and of the production
    instrument : name, YAML file or "auto"
    monotonic : clock for waits [s], so that a step of the host's clock does no harm
    """

    def __init__(
        self,
        store: Store,
        raw: Path,
        redux: Path,
        settings: IngestSettings,
        instrument: str = "auto",
        source: str = "ingest",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.raw = raw
        self.redux = redux
        self.settings = settings
        self.instrument = instrument
        self.source = source
        if settings.settle_s is not None:
            self.settle_s = settings.settle_s
        else:
            self.settle_s = _SETTLE_NETWORK_S if is_network_filesystem(raw) else _SETTLE_S
        self._monotonic = monotonic
        self._clocks: dict[Place, _Clock] = {}

    def look(self, place: Place, renamed: bool = False) -> float | None:
        """Look once; returns after how long to look again [s], None if only a change of the file matters now.

        Parameters
        ----------
        renamed : the file was seen to get its final name by a rename, which tells that its writer was done

        Raises
        ------
        StoreAway : the decision could not be stored; look again later
        """
        path = place.find(self.raw)
        with self.store.read() as conn:
            row = exposures.find(conn, place.night, place.expid)
        if path is None:
            if row is None or row["state"] in _CLOSED or Path(row["path"]).exists():
                return None  # if it exists, it belongs to another raw folder
            path, stamp = Path(row["path"]), ""
        else:
            stamp = exposure_stamp(path, self.raw, self.redux, place)
            if row and row["stamp"] == stamp and row["path"] == str(path) and row["state"] in _CLOSED:
                return None
        clock = self._clock(place, stamp)
        if row is None or row["state"] in ("failed", "incomplete"):
            reason = "a new file" if row is None else "the file changed"
            with self.store.write() as conn:
                exposures.see(conn, self.source, place.night, place.expid, path, stamp, reason)
                row = exposures.find(conn, place.night, place.expid)
        assert row is not None
        decision = self._decide(path, place, stamp, clock, renamed, row["identity"])
        self._store(decision, place, path, stamp, clock, row)
        if decision.kind != "wait":
            self._clocks.pop(place, None)
        return decision.look_again

    def _decide(self, path: Path, place: Place, stamp: str, clock: _Clock, renamed: bool, processed: str) -> _Decision:
        """`processed` is the identity of the content that was processed last, "" if none was."""
        quiet = self._monotonic() - clock.since
        if not stamp:
            return self._wait_for_more(quiet, "the file is gone")
        try:
            structure = read_structure(path)
            if not structure.broken and not structure.is_whole:
                return self._wait_for_more(quiet, structure.shortfall)
            if structure.broken:
                raise BadFile(path, structure.broken)
            facts, promised = read_facts(path, place, self.instrument)
        except FileNotFoundError:
            return self._wait_for_more(quiet, "the file is gone")
        except OSError as error:
            return self._wait_for_more(quiet, f"it cannot be read: {error}")
        except (BadFile, ValueError) as error:
            if quiet < self.settle_s:
                return _Decision("wait", str(error), self.settle_s - quiet, settling=True)
            return _Decision("fail", str(error))

        sidecar = find_sidecar(path, place)
        proof_s = min(_BRIEF_S, self.settle_s) if promised and not facts.missing else self.settle_s
        if sidecar is None and not renamed and quiet < proof_s:
            reason = f"{structure.size} bytes are whole; {_cameras(facts)}; waiting {proof_s:g} s for more"
            return _Decision("wait", reason, proof_s - quiet, settling=True)
        if clock.sums is None or (sidecar is not None and not clock.sums[1]):
            clock.sums = content_identity(path, sidecar)
        identity, theirs = clock.sums
        if sidecar is not None and theirs != sidecar.expected:
            reason = f"its {sidecar.algorithm} is {theirs}, {sidecar.path.name} says {sidecar.expected}"
            return self._wait_for_more(quiet, reason)
        return self._complete(path, place, stamp, clock, facts, identity, processed)

    def _complete(
        self, path: Path, place: Place, stamp: str, clock: _Clock, facts: Facts, identity: str, processed: str
    ) -> _Decision:
        """The raw file is complete; what about its fibermap?"""
        now = self._monotonic()
        if clock.whole_since is None:
            clock.whole_since = now
        notes = [_cameras(facts)]
        is_known = processed.partition("+")[0] == identity
        if facts.flavor in ("flat", "science"):
            left = self.settings.fibermap_wait_s - (now - clock.whole_since) if is_awaited(facts) else 0.0
            found = obtain_fibermap(path, self.raw, self.redux, place, self.instrument, hurry=left <= 0 or is_known)
            if found.path is None and left > 0 and not is_known:
                reason = f"waiting {self.settings.fibermap_wait_s:g} s for {found.missing}"
                if found.note:
                    reason += f"; {found.note}"
                return _Decision("wait", reason, min(left, self.settle_s or left))
            if found.path is not None:
                identity += "+" + content_identity(found.path)[0]
                facts = replace(facts, fibermap=found.path, program=found.program or facts.program)
            elif is_awaited(facts):
                notes.append(f"no fibermap came within {self.settings.fibermap_wait_s:g} s")
            if found.note:
                notes.append(found.note)
        if exposure_stamp(path, self.raw, self.redux, place) != stamp:
            return _Decision("wait", "it changed while it was read", _BRIEF_S, settling=True)
        if processed == identity or (is_known and facts.fibermap is None):
            return _Decision("same", "size or time changed, the content did not: nothing to do")
        if processed:
            notes.insert(0, "its fibermap came or changed" if is_known else "its content changed")
        return _Decision("ready", "; ".join(notes), facts=facts, identity=identity)

    def _wait_for_more(self, quiet: float, what: str) -> _Decision:
        limit = self.settings.give_up_s
        if quiet >= limit:
            reason = f"gave up after {limit:g} s: {what}; it is looked at again when it changes"
            return _Decision("give up", reason)
        return _Decision("wait", f"incomplete, waiting: {what}", min(limit - quiet, max(self.settle_s, _BRIEF_S)))

    def _store(self, decision: _Decision, place: Place, path: Path, stamp: str, clock: _Clock, row: RowMapping) -> None:
        night, expid, source = place.night, place.expid, self.source
        if decision.kind == "wait":
            now = self._monotonic()
            if decision.settling and row["identity"] and row["state"] in _OPENED:
                return  # it may be a mere touch of a file that was processed
            if row["state"] == "waiting" and (
                row["reason"] == decision.reason
                or (_without_numbers(row["reason"]) == _without_numbers(decision.reason) and now - clock.told < _TELL_S)
            ):
                return
            clock.told = now
        log = exposure_log(expid, name="ingest")
        with self.store.write() as conn:
            match decision.kind:
                case "wait":
                    exposures.wait(conn, source, night, expid, stamp, decision.reason)
                case "give up":
                    exposures.mark_incomplete(conn, source, night, expid, stamp, decision.reason)
                case "fail":
                    exposures.mark_failed(conn, source, night, expid, stamp, decision.reason)
                case "same":
                    exposures.see_again(conn, source, night, expid, path, stamp, decision.reason)
                case "ready":
                    assert decision.facts is not None
                    exposures.open_for_processing(
                        conn, source, night, expid, path, decision.facts, decision.identity, stamp, decision.reason
                    )
        if decision.kind in ("give up", "fail"):
            log.warning("%s: %s", {"give up": "incomplete", "fail": "failed"}[decision.kind], decision.reason)
        else:
            level = logging.DEBUG if decision.settling else logging.INFO  # every new file settles
            log.log(level, "%s: %s", decision.kind, decision.reason)

    def _clock(self, place: Place, stamp: str) -> _Clock:
        """The clock of the raw file, started anew if the file changed; its fibermap has none."""
        raw_stamp = stamp.partition(" ")[0]
        clock = self._clocks.get(place)
        if clock is None or clock.stamp != raw_stamp:
            clock = self._clocks[place] = _Clock(raw_stamp, self._monotonic())
        return clock


def _cameras(facts: Facts) -> str:
    have, promised = len(facts.cameras), len(facts.cameras) + len(facts.missing)
    if facts.missing:
        return f"{have} of {promised} cameras, {', '.join(facts.missing)} missing"
    return f"{have} camera{'s' if have > 1 else ''}"


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "", text)
