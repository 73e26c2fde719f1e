"""What is raised when a file cannot be understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class BadFile(ValueError):
    """A file is corrupt, or lacks something: says which file, HDU and keyword, the value, and what was expected.

    All arguments are positional, so that the error survives the way back from a worker process.
    """

    def __init__(
        self,
        path: Path | str,
        problem: str,
        hdu: str | int | None = None,
        keyword: str | None = None,
        value: Any = None,
        expected: str = "",
    ) -> None:
        super().__init__(path, problem, hdu, keyword, value, expected)
        self.path = Path(path)
        self.problem = problem
        self.hdu = hdu
        self.keyword = keyword
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        where = str(self.path)
        if self.hdu is not None:
            where += f", HDU {self.hdu}"
        text = f"{where}: {self.problem}"
        if self.keyword is not None:
            text += f" ({self.keyword} = {self.value!r})"
        return text + (f"; expected {self.expected}" if self.expected else "")
