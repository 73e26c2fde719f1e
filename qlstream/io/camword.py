"""Camera words such as `a0123b45`: sets of cameras as short text (spec paths-and-names §5).

Grammar: a letter `a`, `b`, `r` or `z` followed by spectrograph digits, repeated; `a` means all three arms.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qlstream.io.badamps import parse_badamps
from qlstream.io.numberlist import parse_number_list

_log = logging.getLogger(__name__)
_ARMS = "brz"
_CAMERA = re.compile(r"^[brz]\d$")


def create_camword(cameras: Iterable[str]) -> str:
    """The canonical word of cameras: `a` with complete spectrographs, then b, r, z with the rest; duplicates fold.

    Raises
    ------
    ValueError : an item is no camera
    """
    digits: dict[str, set[str]] = {arm: set() for arm in _ARMS}
    for camera in cameras:
        name = str(camera).strip().lower()
        if not _CAMERA.match(name):
            raise ValueError(f"{camera!r} is no camera; expected one of b, r, z and one digit")
        digits[name[0]].add(name[1])
    complete = set.intersection(*digits.values())
    parts = {"a": complete, **{arm: found - complete for arm, found in digits.items()}}
    return "".join(letter + "".join(sorted(found)) for letter, found in parts.items() if found)


def decode_camword(camword: str | None) -> list[str]:
    """The cameras of a word, sorted; duplicates are kept, letters without digits are skipped.

    Raises
    ------
    ValueError : another character than a, b, r, z and digits, or digits before any letter
    """
    if camword is None:
        _log.error("decode_camword: got None in place of a camera word; taken as empty")
        return []
    arms = ""
    cameras = []
    for character in camword.strip().lower():
        if character in "abrz":
            arms = _ARMS if character == "a" else character
        elif character.isdigit() and arms:
            cameras += [arm + character for arm in arms]
        else:
            raise ValueError(f"{camword!r} is no camera word: unexpected {character!r}; expected e.g. a0123b45")
    return sorted(cameras)


def parse_cameras(cameras: str | Sequence[str] | None) -> str | None:
    """The canonical word of what users write: `0,1,2`, `012`, `A01`, `b0,r1,z2`, or a list of cameras.

    Groups of digits without a letter mean all arms; two-digit ones are refused as ambiguous. Text that is no
    camera word comes back with `a` before it, unchecked, as in `q` -> `aq`.

    Raises
    ------
    ValueError : a group of two digits without a letter
    """
    if cameras is None:
        return None
    if not isinstance(cameras, str):
        return create_camword(cameras)
    words = []
    for group in filter(None, cameras.replace(" ", "").lower().split(",")):
        if group.isdigit() and len(group) == 2:
            raise ValueError(f"{group!r} in {cameras!r} may be two spectrographs or one number; write a{group}")
        words.append(group if group[0] in "abrz" else f"a{group}")
    try:
        return create_camword(decode_camword("".join(words)))
    except ValueError:
        return "".join(words)


def promised_cameras(header: Mapping[str, Any], arms: Iterable[str] = _ARMS) -> tuple[str, ...]:
    """The cameras that an exposure header says were read out; none if it does not say.

    CAMERAS lists them; SPCGRPHS (or CCDSPECS) lists their spectrographs, each of which has all `arms`.

    Raises
    ------
    ValueError : CAMERAS is no list of cameras
    """
    if header.get("CAMERAS"):
        return tuple(decode_camword(parse_cameras(str(header["CAMERAS"]))))
    text = str(header.get("SPCGRPHS") or header.get("CCDSPECS") or "")
    spectrographs = sorted({int(number) for number in re.findall(r"\d+", text)})
    return tuple(f"{arm}{spectrograph}" for spectrograph in spectrographs for arm in arms)


def difference_camwords(full: str, remove: str | None) -> str:
    """The cameras of `full` that are not in `remove`."""
    removed = set(decode_camword(remove)) if remove else set()
    return create_camword(camera for camera in decode_camword(full) if camera not in removed)


def camword_union(camwords: str | Sequence[str], full_spectros_only: bool = False) -> str:
    """All cameras of several words; with `full_spectros_only`, those of spectrographs that are then complete.

    A single word comes back unchanged; if no spectrograph is complete the answer is `a`.

    Raises
    ------
    ValueError : no words
    """
    if isinstance(camwords, str):
        return camwords
    if not camwords:
        raise ValueError("camword_union: no camera words; expected at least one")
    word = create_camword(camera for w in camwords for camera in decode_camword(w))
    return _complete(word) if full_spectros_only else word


def camword_intersection(camwords: Sequence[str], full_spectros_only: bool = False) -> str:
    """The cameras that all words share; with `full_spectros_only`, those of complete spectrographs.

    Raises
    ------
    ValueError : no words
    """
    if not camwords:
        raise ValueError("camword_intersection: no camera words; expected at least one")
    word = create_camword(set.intersection(*(set(decode_camword(w)) for w in camwords)))
    return _complete(word) if full_spectros_only else word


def camword_to_spectros(camword: str, full_spectros_only: bool = False) -> list[int]:
    """The spectrographs that a word touches, or those that it has complete."""
    word = create_camword(decode_camword(camword))
    if full_spectros_only:
        word = _complete(word)
    return sorted({int(camera[1]) for camera in decode_camword(word)})


def spectros_to_camword(spectrographs: str | Iterable[int]) -> str:
    """The word of complete spectrographs, from numbers or from text such as `0-7,9` (ends included)."""
    if isinstance(spectrographs, str):
        spectrographs = parse_number_list(spectrographs, include_end=True)
    return create_camword(f"{arm}{sp}" for sp in spectrographs for arm in _ARMS)


def good_camword(camword: str, badcamword: str = "", badamps: str = "", exclude_badamps: bool = False) -> str:
    """CAMWORD less BADCAMWORD, and if asked less the cameras with a bad amplifier."""
    good = difference_camwords(camword, badcamword)
    if exclude_badamps:
        good = difference_camwords(good, create_camword(f"{arm}{petal}" for arm, petal, _ in parse_badamps(badamps)))
    return good


def _complete(word: str) -> str:
    """The part of a canonical word with complete spectrographs: `a` and its digits, `a` alone if there are none."""
    match = re.match(r"a\d*", word)
    return match[0] if match else "a"
