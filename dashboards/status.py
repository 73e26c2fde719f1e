"""The eight states that a page shows: each with a word, a shape and a letter, so that color is never alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qlstream.pipeline.result import QASeverity


@dataclass(frozen=True)
class Look:
    """How a state is shown.

    Attributes
    ----------
    word : the verdict in one word
    letter : for places where only a letter fits
    shape : name of the symbol in `templates/symbols.html`, and of the CSS class
    marker : of Bokeh
    color : for canvas figures, readable on dark and on light ground (Okabe & Ito)
    rank : the larger, the sooner it must be looked at
    """

    word: str
    letter: str
    shape: str
    marker: str
    color: str
    rank: int


class Status(Enum):
    """The state of a camera or of an exposure, the worst last."""

    NORMAL = Look("NORMAL", "N", "normal", "circle", "#009e73", 0)
    QUEUED = Look("QUEUED", "Q", "queued", "circle_dot", "#8a94a0", 1)
    RUNNING = Look("RUNNING", "R", "running", "circle_dot", "#56b4e9", 2)
    UNKNOWN = Look("UNKNOWN", "U", "unknown", "diamond", "#8a94a0", 3)
    WARNING = Look("WARNING", "W", "warning", "triangle", "#e69f00", 4)
    MISSING = Look("MISSING", "M", "missing", "x", "#cc79a7", 5)
    ALARM = Look("ALARM", "A", "alarm", "square", "#d55e00", 6)
    FAILED = Look("FAILED", "F", "failed", "x", "#d55e00", 7)

    @property
    def word(self) -> str:
        return self.value.word

    @property
    def letter(self) -> str:
        return self.value.letter

    @property
    def shape(self) -> str:
        return self.value.shape

    @property
    def marker(self) -> str:
        return self.value.marker

    @property
    def color(self) -> str:
        return self.value.color

    @property
    def rank(self) -> int:
        return self.value.rank


_OF_SEVERITY = {
    QASeverity.NORMAL: Status.NORMAL,
    QASeverity.UNKNOWN: Status.UNKNOWN,
    QASeverity.WARNING: Status.WARNING,
    QASeverity.ALARM: Status.ALARM,
}


def status_of(severity: int | None) -> Status:
    """The state that a severity of the store stands for; nothing judged yet is NORMAL."""
    return _OF_SEVERITY[QASeverity(severity)] if severity is not None else Status.NORMAL
