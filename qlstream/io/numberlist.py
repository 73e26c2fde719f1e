"""Lists of whole numbers as text: `1,3:5,7-9,10..12` (spec paths-and-names §7)."""

from __future__ import annotations

import re

_ITEM = re.compile(r"^(\d+)(?:(?::|-|\.\.)(\d+))?$")


def parse_number_list(text: str, include_end: bool = False) -> list[int]:
    """The numbers of a list; ranges with `:`, `-` or `..` leave their end out unless `include_end`.

    Raises
    ------
    ValueError : an item is no number nor range
    """
    numbers: list[int] = []
    for item in text.replace(" ", "").split(","):
        match = _ITEM.match(item)
        if not match:
            if item == "":
                continue
            raise ValueError(f"{item!r} in {text!r} is no number nor range; expected e.g. 1,3:5,7-9,10..12")
        first, end = int(match[1]), match[2]
        numbers += [first] if end is None else range(first, int(end) + include_end)
    return numbers
