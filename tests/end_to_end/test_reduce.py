"""A mini night from raw exposures to coadds by one command, killed half-way and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import fitsio
import numpy as np
import pytest

NIGHT = 20260115
KINDS = ("arc", "flat", "science-dark")
COMMAND = [sys.executable, "-m", "qlstream.cli.main"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reduced")
    command = [*COMMAND, "simulate", "--instrument", "mini", "--night", str(NIGHT), "--cameras", "b0,r0"]
    subprocess.run([*command, "--exposures", ",".join(KINDS), "--out", str(folder)], check=True, capture_output=True)
    return folder


def start(night: Path, redux: Path) -> subprocess.Popen[str]:
    arguments = ["reduce", str(NIGHT), "--raw", str(night / "raw"), "--calib", str(night / "calib")]
    arguments += ["--redux", str(redux), "--workers", "2"]
    return subprocess.Popen([*COMMAND, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def products(redux: Path) -> dict[str, Path]:
    found = [p for folder in ("exposures", "calibnight", "tiles") for p in (redux / folder).rglob("*.fits*")]
    return {str(p.relative_to(redux)): p for p in found if "_tmp" not in p.name}


def test_a_night_killed_half_way_and_started_again_gives_the_same_products(night: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(night, whole)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert "coadd" in told
    expected = products(whole)
    assert any("coadd-0-" in name for name in expected)

    process = start(night, broken)
    give_up = time.monotonic() + 300
    while len(products(broken)) < len(expected) // 2 and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    made = {name: path.stat().st_mtime_ns for name, path in products(broken).items()}
    assert 0 < len(made) < len(expected)

    again = start(night, broken)
    told, _ = again.communicate(timeout=600)
    assert again.returncode == 0, told
    found = products(broken)
    assert found.keys() == expected.keys()
    kept = [name for name, when in made.items() if found[name].stat().st_mtime_ns == when]
    assert len(kept) >= len(made) - 4, "what was whole is not made again, but for what two workers had in hand"
    for name, path in found.items():
        with fitsio.FITS(str(path)) as mine, fitsio.FITS(str(expected[name])) as other:
            assert [h.get_extname() for h in mine] == [h.get_extname() for h in other], name
            for one, two in zip(mine, other, strict=True):
                if one.get_exttype() == "IMAGE_HDU" and one.has_data():
                    np.testing.assert_array_equal(one.read(), two.read(), err_msg=f"{name} {one.get_extname()}")
