"""Which form of a file is on disk: NAME or NAME.gz."""

from __future__ import annotations

from pathlib import Path


def other_form(path: Path | str) -> Path:
    """NAME.gz of NAME, and NAME of NAME.gz."""
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")


def existing_file(path: Path | str) -> Path:
    """The path itself if it exists, else its other form (spec paths-and-names §4).

    Raises
    ------
    FileNotFoundError : neither exists
    """
    path = Path(path)
    for candidate in (path, other_form(path)):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{path}: no such file, nor {other_form(path).name}")
