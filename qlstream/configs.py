"""Finds the YAML files that ship with qlstream: in the wheel inside the package, in a checkout beside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def config_root() -> Path:
    """The folder `configs/`, which holds `default.yaml`, `instruments/`, `plans/` and `qa/`.

    Raises
    ------
    FileNotFoundError : neither the installed nor the checked-out folder is there
    """
    for candidate in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (candidate / "instruments").is_dir():
            return candidate
    raise FileNotFoundError(
        f"no configs folder in {_PACKAGE} nor beside it; reinstall qlstream, or run it from a full checkout"
    )


def config_path(*parts: str) -> Path:
    """A shipped YAML file, e.g. `config_path("instruments", "mini.yaml")`.

    Raises
    ------
    FileNotFoundError : no such file ships; the message lists what its folder holds
    """
    path = config_root().joinpath(*parts)
    if not path.exists():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*"))) if path.parent.is_dir() else "nothing"
        raise FileNotFoundError(f"no shipped configuration {'/'.join(parts)}; {path.parent.name}/ holds {there}")
    return path
