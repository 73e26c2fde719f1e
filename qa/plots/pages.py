"""Which plots there are: pages of panels, from YAML (spec quicklook-qa §3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from qlstream.configs import config_path

SEQUENTIAL = "cividis"  # reads the same for every kind of color vision
DIVERGING = "PuOr"


class PlotConfigError(ValueError):
    """A plot configuration with mistakes; the message names every one with file, page and panel."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _is_ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if not interval[0] < interval[1]:
        raise ValueError(f"the lower end must come first, got {list(interval)}")
    return interval


def _is_map(name: str) -> str:
    from matplotlib import colormaps

    if name not in colormaps:
        raise ValueError(f"{name!r} is no colour map of matplotlib; try {SEQUENTIAL} or {DIVERGING}")
    return name


Names = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
Span = Annotated[tuple[float, float], AfterValidator(_is_ordered)]
Map = Annotated[str, AfterValidator(_is_map)]
Size = Annotated[int, Field(ge=1, le=100)]


class _Panel(BaseModel):
    """What all panels have.

    Names of values are keys of a metric, with an index or an element if need be: XWSIGMA[0], BIAS_AMP[C].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    PLOT_TITLE: str = ""

    @property
    def main(self) -> list[str]:
        """The names that decide which metric the panel belongs to."""
        raise NotImplementedError


class Patch(_Panel):
    """Values as a map of rectangles, the first at the lower left: amplifiers A, B below C, D."""

    TYPE: Literal["PATCH"]
    VALS: str
    GRID: tuple[Size, Size] = (2, 2)
    ZRANGE: Span | None = None
    HEAT: Map = SEQUENTIAL

    @property
    def main(self) -> list[str]:
        return [self.VALS]


class _Axes(_Panel):
    XTITLE: str | None = None
    YTITLE: str | None = None
    XRANGE: Span | None = None
    YRANGE: Span | None = None
    LOG: Literal["", "x", "y", "xy"] = ""


class Plot2D(_Axes):
    """One or more values against another, or against their INDEX.

    RANGE_OF names the judged value whose range is drawn with them.
    """

    TYPE: Literal["2DPLOT"]
    XVALS: str
    YVALS: Names
    STYLE: Literal["points", "line", "bars", "steps"] = "points"
    RANGE_OF: str | None = None

    @property
    def main(self) -> list[str]:
        return self.YVALS[:1]


class Plot3D(_Axes):
    """Points on a plane whose colour is a third value."""

    TYPE: Literal["3DPLOT"]
    XVALS: str
    YVALS: str
    ZVALS: str
    ZTITLE: str | None = None
    ZRANGE: Span | None = None
    HEAT: Map = SEQUENTIAL

    @property
    def main(self) -> list[str]:
        return [self.ZVALS]


class Bars(_Axes):
    """One bar for each amplifier, class or fiber, with its range."""

    TYPE: Literal["BARS"]
    VALS: str

    @property
    def main(self) -> list[str]:
        return [self.VALS]


class Histogram(_Axes):
    """How often a value occurs."""

    TYPE: Literal["HISTOGRAM"]
    VALS: Names
    BINS: int = Field(20, ge=1, le=1000)
    RANGE_OF: str | None = None

    @property
    def main(self) -> list[str]:
        return self.VALS[:1]


class Table(_Panel):
    """Single values with their ranges and verdicts; those that the metric has."""

    TYPE: Literal["TABLE"]
    VALS: Names

    @property
    def main(self) -> list[str]:
        return self.VALS


Panel = Annotated[Patch | Plot2D | Plot3D | Bars | Histogram | Table, Field(discriminator="TYPE")]
_panel: TypeAdapter[Any] = TypeAdapter(Panel)


@dataclass(frozen=True)
class Page:
    """A title and its panels, in order; `metrics` are those that it is for, none means any that has the values."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    metrics: tuple[str, ...] = ()


def load_pages(path: Path | None = None) -> tuple[Page, ...]:
    """The pages of a plot configuration; the shipped one by default.

    Raises
    ------
    PlotConfigError : naming every mistake at once
    """
    path = path or config_path("qa", "plots.yaml")
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlotConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise PlotConfigError(f"{path}: expected pages, PAGE1: {{Title: ..., PANEL: {{TYPE: ...}}}}, got {content!r}")
    wrong: list[str] = []
    pages = [_page(str(name), given, wrong) for name, given in content.items()]
    if wrong:
        raise PlotConfigError("\n".join([f"{path}: {len(wrong)} wrong entries", *(f"  {w}" for w in wrong)]))
    return tuple(pages)


def _page(name: str, given: Any, wrong: list[str]) -> Page:
    if not isinstance(given, dict):
        wrong.append(f"{name}: expected a Title and panels, got {given!r}")
        return Page(name, "", ())
    panels: list[Any] = []
    for key, entry in given.items():
        if key in ("Title", "QA"):
            continue
        if not isinstance(entry, dict):
            wrong.append(f"{name}.{key}: expected TYPE and its values, got {_short(entry)}")
            continue
        try:
            panels.append(_panel.validate_python(entry))
        except ValidationError as error:
            for e in error.errors():
                where = ".".join([name, str(key), *(str(part) for part in e["loc"] if part != entry.get("TYPE"))])
                wrong.append(f"{where}: {e['msg']}, got {_short(e['input'])}")
    metrics = _as_list(given.get("QA", []))
    if not isinstance(metrics, list) or not all(isinstance(metric, str) for metric in metrics):
        wrong.append(f"{name}.QA: expected names of metrics, got {_short(metrics)}")
        metrics = []
    return Page(name, str(given.get("Title", "")), tuple(panels), tuple(metrics))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
