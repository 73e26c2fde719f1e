"""Lists of bad amplifiers such as `b7D,z8A` (spec paths-and-names §6)."""

from __future__ import annotations

import re

_BAD_AMP = re.compile(r"^([brz])(\d)([A-D])$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[;:|.,\-_]")


def parse_badamps(badamps: str | None) -> list[tuple[str, int, str]]:
    """(arm, petal, amplifier) of each entry of a comma-separated list; empty or None gives none.

    Raises
    ------
    TypeError : not text
    ValueError : an entry is not arm, petal, amplifier
    """
    if badamps is None:
        return []
    if not isinstance(badamps, str):
        raise TypeError(f"badamps must be text such as b7D,z8A, got {badamps!r} of type {type(badamps).__name__}")
    found = []
    for entry in filter(None, (part.strip() for part in badamps.split(","))):
        match = _BAD_AMP.match(entry)
        if not match:
            raise ValueError(f"{entry!r} in {badamps!r} is no amplifier; expected arm b, r or z, petal, amp A-D: b7D")
        found.append((match[1].lower(), int(match[2]), match[3].upper()))
    return found


def validate_badamps(badamps: str | None) -> str:
    """The list in its canonical form; also `;`, `:`, `|`, `.`, `-` and `_` separate, spaces go.

    Raises
    ------
    ValueError, TypeError : as `parse_badamps`
    """
    if isinstance(badamps, str):
        badamps = _SEPARATORS.sub(",", badamps.replace(" ", ""))
    return ",".join(f"{arm}{petal}{amp}" for arm, petal, amp in parse_badamps(badamps))


def amps_of_camera(badamps: str | None, camera: str) -> str:
    """Letters of the bad amplifiers of one camera, from a list of any cameras, or from letters alone such as `AD`.

    Raises
    ------
    ValueError, TypeError : as `parse_badamps`
    """
    if isinstance(badamps, str) and re.fullmatch(r"\s*[A-Da-d]+\s*", badamps):
        return badamps.strip().upper()
    return "".join(amp for arm, petal, amp in parse_badamps(badamps) if f"{arm}{petal}" == camera.lower())
