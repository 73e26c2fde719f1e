"""Files come in every way that files come, and each exposure is processed exactly once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from qlstream.store.schema import events, exposures

from .conftest import NIGHT


def raw_of(root: Path, expid: int) -> Path:
    return root / str(NIGHT) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"


def test_each_exposure_is_processed_exactly_once_however_it_comes(service, night):
    def source(expid: int) -> Path:
        return raw_of(night / "raw", expid)

    def target(expid: int) -> Path:
        path = raw_of(service.raw, expid)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # there before the service
    shutil.copy(source(1), target(1))
    service.start("--no-dashboard")
    service.wait(lambda: service.states().get(1) == "done")

    # renamed into place, the later one first
    for expid in (3, 2):
        temporary = target(expid).with_suffix(".tmp")
        shutil.copy(source(expid), temporary)
        os.rename(temporary, target(expid))
    # under rsync's temporary name, then renamed
    hidden = target(4).parent / ".desi-00000004.fits.fz.Xa3b9c"
    shutil.copy(source(4), hidden)
    os.rename(hidden, target(4))
    # with its folder, before anybody could watch that
    shutil.copytree(source(5).parent, service.raw / "incoming")
    os.rename(service.raw / "incoming", target(6).parent.parent / "00000005")
    # by a hard link, then touched
    os.link(source(6), target(6)) if source(6).stat().st_dev == service.raw.stat().st_dev else shutil.copy(
        source(6), target(6)
    )
    # science without its fibermap for a while
    shutil.copy(source(13), target(13))
    # one that never becomes whole
    target(8).write_bytes(source(8).read_bytes()[:20_000])
    # growing, slowly
    content = source(7).read_bytes()
    with open(target(7), "wb") as file:
        for start in range(0, len(content), len(content) // 8):
            file.write(content[start : start + len(content) // 8])
            file.flush()
            time.sleep(0.15)

    service.wait(lambda: service.states().get(13) == "waiting")
    shutil.copy(source(13).parent / "fibermap-00000013.fits", target(13).parent)
    service.wait(lambda: all(service.states().get(e) == "done" for e in (1, 2, 3, 4, 5, 6, 7, 13)))
    service.wait(lambda: service.states().get(8) == "incomplete")

    # again, with the same content; and with another one
    shutil.copy(source(1), target(1))
    os.utime(target(2))
    changed = target(3).with_suffix(".tmp")
    shutil.copy(source(9), changed)
    _renumber(changed, 3)
    os.rename(changed, target(3))
    service.wait(lambda: any(row["version"] == 2 and row["state"] == "done" for row in service.rows(exposures)))
    service.wait(lambda: all(_was_seen_again(service, expid) for expid in (1, 2)))
    # the rest of the one that was cut off
    shutil.copy(source(8), target(8))
    service.wait(lambda: service.states().get(8) == "done")

    status, out = service.stop()
    assert status == 0, out
    assert set(service.states().values()) == {"done"}
    service.check_exactly_once({1: 1, 2: 1, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 13: 1})
    told = [row["payload"]["reason"] for row in service.rows(events, events.c.kind == "exposure.incomplete")]
    assert len(told) == 1
    assert "gave up after 4 s" in told[0]


def _was_seen_again(service, expid: int) -> bool:
    seen = service.rows(events, events.c.kind == "exposure.seen", events.c.expid == expid)
    return any(row["payload"].get("again") for row in seen)


def _renumber(path: Path, expid: int) -> None:
    """Give a raw file another exposure number, as its path wants it."""
    import fitsio

    with fitsio.FITS(path, "rw") as fits:
        for hdu in fits:
            if "EXPID" in hdu.read_header():
                hdu.write_key("EXPID", expid)
