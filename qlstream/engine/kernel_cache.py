"""Where compiled kernels are kept, and whether those of the present code are there."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_STAMP = "qlstream-warm-"


def find_cache() -> Path:
    """The folder for compiled kernels; numba is told if it is not the usual one. Call it before numba is imported.

    Usual is `__pycache__` beside the code; where that cannot be written, the user's cache, or else a temporary folder.

    Raises
    ------
    OSError : none of them can be written
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return Path(given)
    beside = _PACKAGE / "__pycache__"
    if _is_writable(beside):
        return beside
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for folder in (Path(base, "qlstream", "numba"), Path(tempfile.gettempdir(), f"qlstream-numba-{os.getuid()}")):
        if _is_writable(folder):
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            return folder
    raise OSError(f"no folder for compiled kernels can be written: neither {beside} nor {base}; set NUMBA_CACHE_DIR")


def is_warm(modules: list[str]) -> bool:
    """Whether the kernels were compiled since the code changed.

    Parameters
    ----------
    modules : of the plans' stages and metrics, which may be a site's own
    """
    return _stamp(modules).exists()


def mark_warm(modules: list[str]) -> None:
    """Note that the kernels are compiled; a folder that cannot be written only costs the next start its time."""
    stamp = _stamp(modules)
    with suppress(OSError):
        for old in stamp.parent.glob(f"{_STAMP}*"):
            old.unlink()
        stamp.touch()


def _stamp(modules: list[str]) -> Path:
    """A file whose name stands for code, versions and machine; it lies with the kernels and is deleted with them."""
    digest = hashlib.sha256()
    for what in (sys.version, version("numba"), version("numpy"), platform.machine(), _processor()):
        digest.update(what.encode())
    for folder in sorted({_PACKAGE, *(_folder_of(module) for module in modules)}):
        for path in sorted(folder.rglob("*.py")):
            stat = path.stat()
            digest.update(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode())
    return find_cache() / f"{_STAMP}{digest.hexdigest()[:16]}"


def _folder_of(module: str) -> Path:
    """Folder of the top package of a module, or the one that a single module lies in."""
    spec = find_spec(module.partition(".")[0])
    return _PACKAGE if spec is None or spec.origin is None else Path(spec.origin).parent


def _processor() -> str:
    """Kernels are compiled for one model of processor; a cache on a shared disk may meet several."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "flags", "Features")):
                return line
    return platform.processor()


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
