"""Drawing one panel into its axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from qa.plots import style
from qa.plots.pages import Bars, Histogram, Panel, Patch, Plot2D, Plot3D, Table
from qa.plots.values import Results, Series
from qlstream.datamodel.amplifier import AMP_NAMES

Array = NDArray[np.float64]
_AMPS = 4
_CROWD = 120  # more points than this are drawn smaller
_SPELT = 8  # more bars than this have no numbers
_MANY = 60  # more bars than this have no names of their own
_FEW = 6  # more fields of a map than this show their value only
_COLOR_RANGE = (2.0, 98.0)  # percentiles of the values at the ends of a colour scale
_ROOM = 0.12  # free space around the data, of their span


class PanelError(ValueError):
    """The values of a panel do not fit together; the message says which and how."""


class NothingToDraw(PanelError):
    """The values are there, but none is a number: nobody's mistake."""


def draw_panel(axes: Axes, panel: Panel, results: Results) -> None:
    """Draw a panel.

    Raises
    ------
    NoSuchValue, PanelError : it cannot be drawn
    """
    _DRAWERS[type(panel)](axes, panel, results)
    axes.set_title(panel.PLOT_TITLE or _title_of(panel), fontsize=9, color=style.INK)
    axes.tick_params(labelsize=7, colors=style.INK)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def say(axes: Axes, text: str) -> None:
    """Words in place of a plot."""
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, text, ha="center", va="center", wrap=True, fontsize=8, color=style.INK, transform=axes.transAxes,
        parse_math=False,
    )  # fmt: skip


def _draw_patch(axes: Axes, panel: Patch, results: Results) -> None:
    series = results.find(panel.VALS)
    values = series.values.ravel()  # a matrix fills the grid row by row, from below
    rows, columns = panel.GRID
    if len(values) > rows * columns:
        raise PanelError(f"{panel.VALS} has {len(values)} values, GRID {rows} x {columns} has fewer places")
    scale = Normalize(*(panel.ZRANGE or _wide_span(values)))
    heat = colormaps[panel.HEAT]
    small = len(values) > _FEW
    for i, (value, place) in enumerate(zip(values, _places(series, rows * columns), strict=True)):
        x, y = place % columns, place // columns
        check = series.check_of(i)
        verdict, mark = style.VERDICTS[check["severity"]] if check else (style.FAINT, "")
        color = heat(scale(value)) if math.isfinite(value) else (0.93, 0.93, 0.93, 1.0)
        edge, width = (verdict, 4) if mark else ("white", 1)
        axes.add_patch(Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, facecolor=color, edgecolor=edge, linewidth=width))
        ink = "white" if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.55 else "black"
        lines: list[tuple[float, str, float]] = [
            (0.5, f"{style.number(value)} {'' if small else series.unit} {mark if small else ''}", 6 if small else 10)
        ]
        if not small:
            label = series.labels[i] if series.labels else f"{i}"
            normal = style.interval(check["normal"]) if check else ""
            lines += [(0.76, f"{label} {mark}", 8), (0.24, f"normal {normal}" if normal else "", 6.5)]
        for height, text, size in lines:
            axes.text(
                x + 0.5, y + height, text.strip(), ha="center", va="center", fontsize=size, color=ink, parse_math=False
            )
    axes.set(xlim=(0, columns), ylim=(0, rows), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _places(series: Series, room: int) -> list[int]:
    """Where on the grid each value stands: amplifiers where they are on the CCD, also if some are absent."""
    if room == _AMPS and series.labels and set(series.labels) <= set(AMP_NAMES):
        return [AMP_NAMES.index(name) % _AMPS for name in series.labels]  # 1 to 4 are A to D
    return list(range(series.values.size))


def _draw_bars(axes: Axes, panel: Bars, results: Results) -> None:
    series = _vector(results.find(panel.VALS))
    places = list(range(len(series.values)))
    checks = [series.check_of(i) for i in places]
    looks = [style.VERDICTS[check["severity"]] if check else (style.SERIES[0], "") for check in checks]
    limits = panel.YRANGE or _limits(series.values, [check for check in checks if check], with_zero=True)
    for i, check in enumerate(checks):
        if check and check["normal"]:
            _band(axes, check, (i - 0.48, i + 0.48), limits)
    heights = np.nan_to_num(series.values)
    axes.bar(places, heights, width=0.6, color=[color for color, _ in looks], zorder=3)
    axes.axhline(0, color=style.INK, linewidth=0.6, zorder=4)
    axes.set_ylim(*limits)
    for i, value in enumerate(series.values):
        mark = looks[i][1]
        text = f"{style.number(value)} {mark}".strip() if len(places) <= _SPELT else mark
        if text:
            axes.annotate(
                text, (i, heights[i]), xytext=(0, 2 if heights[i] >= 0 else -9), textcoords="offset points",
                ha="center", fontsize=7, color=style.INK, zorder=5,
            )  # fmt: skip
    if series.labels and len(series.labels) <= _MANY:
        axes.set_xticks(places, series.labels)
    axes.set_xlim(-0.7, len(places) - 0.3)
    axes.set_ylabel(panel.YTITLE if panel.YTITLE is not None else series.label, parse_math=False)
    axes.set_xlabel(panel.XTITLE or "", parse_math=False)
    _scale(axes, panel)


def _draw_2d(axes: Axes, panel: Plot2D, results: Results) -> None:
    many = [_vector(results.find(name)) for name in panel.YVALS]
    counted = Series("element", np.arange(len(many[0].values), dtype=float))
    x = counted if panel.XVALS == "INDEX" else _vector(results.find(panel.XVALS))
    many = [results.of_fibers(y, x) for y in many]
    for y in many:
        _require_same_length({panel.XVALS: x, y.name: y})
    judged = results.find(panel.RANGE_OF, single=True) if panel.RANGE_OF and panel.RANGE_OF in results else many[0]
    checks = [c for c in judged.checks if c["normal"]]
    together = np.concatenate([y.values for y in many])
    if not np.isfinite(together).any():
        raise NothingToDraw(f"{', '.join(panel.YVALS)}: there is no finite value")
    limits = _limits(together, checks, with_zero=panel.STYLE == "bars")
    if "y" not in panel.LOG:
        axes.set_ylim(*(panel.YRANGE or limits))
    if checks and all(c["normal"] == checks[0]["normal"] for c in checks):
        _band(axes, checks[0], None, panel.YRANGE or limits)
    draw = _STYLES[panel.STYLE]
    for i, y in enumerate(many):
        good = np.isfinite(x.values) & np.isfinite(y.values)
        if "y" in panel.LOG:
            good &= y.values > 0
        if not good.any():
            continue
        draw(axes, x.values[good], y.values[good], style.SERIES[i % len(style.SERIES)], i, y.name)
    axes.set_xlabel(panel.XTITLE if panel.XTITLE is not None else x.label, parse_math=False)
    axes.set_ylabel(panel.YTITLE if panel.YTITLE is not None else many[0].label, parse_math=False)
    if len(many) > 1:
        axes.legend(fontsize=6.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    if panel.XVALS == "FIBER" and not panel.XRANGE:
        axes.set_xlim(-0.03 * len(x.values), 1.03 * len(x.values))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    _scale(axes, panel)


def _points(axes: Axes, x: Array, y: Array, color: str, order: int, name: str) -> None:
    size = 4 if len(x) <= _CROWD else 2.2
    axes.plot(x, y, "os^Dv<"[order % 6], markersize=size, color=color, label=name, linestyle="none")


def _line(axes: Axes, x: Array, y: Array, color: str, order: int, name: str) -> None:
    at = np.argsort(x)
    axes.plot(
        x[at], y[at], ("-", "--", ":")[order % 3], linewidth=1 if len(x) <= _CROWD else 0.6, color=color, label=name
    )


def _bars(axes: Axes, x: Array, y: Array, color: str, order: int, name: str) -> None:
    share = 0.8 if len(x) <= _CROWD else 1.0  # gaps would be finer than a printer's dots
    width = share * float(np.min(np.diff(np.unique(x)))) if np.unique(x).size > 1 else share
    axes.bar(x, y, width=width, color=color, label=name, zorder=3)


def _steps(axes: Axes, x: Array, y: Array, color: str, order: int, name: str) -> None:
    at = np.argsort(x)
    axes.step(x[at], y[at], where="mid", linewidth=0.9, color=color, label=name)


_STYLES: dict[str, Callable[[Axes, Array, Array, str, int, str], None]] = {
    "points": _points,
    "line": _line,
    "bars": _bars,
    "steps": _steps,
}


def _draw_3d(axes: Axes, panel: Plot3D, results: Results) -> None:
    x, y, z = (_vector(results.find(name)) for name in (panel.XVALS, panel.YVALS, panel.ZVALS))
    _require_same_length({panel.XVALS: x, panel.YVALS: y, panel.ZVALS: z})
    good = np.isfinite(x.values) & np.isfinite(y.values) & np.isfinite(z.values)
    if not good.any():
        raise NothingToDraw(f"{panel.ZVALS}: there is no finite value")
    low, high = panel.ZRANGE or _span(np.percentile(z.values[good], _COLOR_RANGE))
    dots = axes.scatter(
        x.values[good],
        y.values[good],
        c=z.values[good],
        cmap=panel.HEAT,
        vmin=low,
        vmax=high,
        s=16,
        linewidths=0.4,
        edgecolors=style.FAINT,
    )
    bar = axes.figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label(panel.ZTITLE if panel.ZTITLE is not None else z.label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.set_xlabel(panel.XTITLE if panel.XTITLE is not None else x.label, parse_math=False)
    axes.set_ylabel(panel.YTITLE if panel.YTITLE is not None else y.label, parse_math=False)
    _scale(axes, panel)


def _draw_histogram(axes: Axes, panel: Histogram, results: Results) -> None:
    many = [_vector(results.find(name)) for name in panel.VALS]
    finite = [s.values[np.isfinite(s.values)] for s in many]
    together = np.concatenate(finite)
    if not together.size:
        raise NothingToDraw(f"{', '.join(panel.VALS)}: there is no finite value")
    low, high = panel.XRANGE or _span(together)
    edges = np.linspace(low, high, panel.BINS + 1).tolist()
    for i, (series, values) in enumerate(zip(many, finite, strict=True)):
        axes.hist(
            values, edges, histtype="stepfilled" if len(many) == 1 else "step", linestyle=("-", "--", ":")[i % 3],
            color=style.SERIES[i % len(style.SERIES)], label=series.name, zorder=3,
        )  # fmt: skip
    judged = results.find(panel.RANGE_OF, single=True) if panel.RANGE_OF and panel.RANGE_OF in results else many[0]
    for check in [c for c in judged.checks if c["normal"]][:1]:
        for end in check["normal"]:
            if end is not None and low <= end <= high:
                axes.axvline(end, color=style.NORMAL_BAND, linestyle="--", linewidth=1, zorder=4)
    axes.set_xlabel(panel.XTITLE if panel.XTITLE is not None else many[0].label, parse_math=False)
    axes.set_ylabel(panel.YTITLE if panel.YTITLE is not None else "number")
    if len(many) > 1:
        axes.legend(fontsize=7, frameon=False)
    if panel.YRANGE:
        axes.set_ylim(*panel.YRANGE)


def _draw_table(axes: Axes, panel: Table, results: Results) -> None:
    axes.set_axis_off()
    rows = []
    for name in panel.VALS:
        if name not in results:
            continue
        series = results.find(name, single=True)
        for i, value in enumerate(series.values):
            check = series.check_of(i) or {}
            element = series.labels[i] if series.labels else ""
            verdict = check.get("severity", "")
            shown = f"{style.number(value)} {series.unit}".strip()
            rows.append((f"{series.name} {element}".strip(), shown, style.interval(check.get("normal")), verdict))
    cells = [("value", "", "normal"), *((name, shown, normal) for name, shown, normal, _ in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    widths[0] = math.ceil(1.25 * widths[0])  # names are in capitals
    letters = sum(widths) + 3
    width, height = _size_of(axes)
    size = min(8.0, width * 72 * 0.92 / (0.66 * letters), height * 72 * 0.8 / (1.7 * len(cells)))
    left = (widths[0] + 1 + widths[1]) / letters
    for i, row in enumerate(cells):
        color, mark = style.VERDICTS.get(rows[i - 1][3] if i else "", (style.INK, ""))
        for text, x, side in zip(row, (0.0, left, left + 2 / letters), ("left", "right", "left"), strict=True):
            axes.annotate(
                f"{text} {mark}".strip() if side == "right" else text,
                (x, 1.0), xycoords="axes fraction", xytext=(0, -(i + 0.5) * 1.7 * size), textcoords="offset points",
                ha=side, va="center", fontsize=size, parse_math=False,
                color=style.FAINT if i == 0 else color if mark and side == "right" else style.INK,
                fontweight="bold" if mark and side == "right" else "normal",
            )  # fmt: skip


def _size_of(axes: Axes) -> tuple[float, float]:
    """What an axes has for itself of its figure [inch]."""
    figure, grid = axes.figure, axes.get_gridspec()
    assert isinstance(figure, Figure)
    rows, columns = grid.get_geometry() if grid is not None else (1, 1)
    width, height = figure.get_size_inches()
    return width / columns, height / rows


_DRAWERS: dict[type, Callable[[Axes, Any, Results], None]] = {
    Patch: _draw_patch,
    Bars: _draw_bars,
    Plot2D: _draw_2d,
    Plot3D: _draw_3d,
    Histogram: _draw_histogram,
    Table: _draw_table,
}


def _band(axes: Axes, check: Mapping[str, Any], along: tuple[float, float] | None, limits: tuple[float, float]) -> None:
    """The normal range of a value and the rest of its warn range, as far as they are within `limits`.

    Over the whole width of the axes, or `along` so much of it.
    """
    low, high = limits
    normal, warn = (_closed(check[key], limits) for key in ("normal", "warn"))
    pieces = [
        (normal, style.NORMAL_BAND),
        ((warn[0], normal[0]), style.WARN_BAND),
        ((normal[1], warn[1]), style.WARN_BAND),
    ]
    for (start, end), color in pieces:
        start, end = max(start, low), min(end, high)
        if not end > start:
            continue
        if along is None:
            axes.axhspan(start, end, color=color, alpha=0.13, linewidth=0, zorder=0)
        else:
            axes.add_patch(
                Rectangle(
                    (along[0], start), along[1] - along[0], end - start, color=color, alpha=0.13, linewidth=0, zorder=0
                )
            )


def _closed(ends: tuple[float | None, float | None], limits: tuple[float, float]) -> tuple[float, float]:
    return (limits[0] if ends[0] is None else ends[0], limits[1] if ends[1] is None else ends[1])


def _limits(values: Array, checks: list[Mapping[str, Any]], with_zero: bool) -> tuple[float, float]:
    """Where an axis should end: all values, and the normal ranges as far as they do not dwarf the values."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0:
        ends = [end for c in checks for end in (*(c["normal"] or ()), *(c["warn"] or ())) if end]
        high = max((abs(end) for end in ends), default=1.0)
    size = max(high - low, 0.2 * max(abs(low), abs(high)))
    for check in checks:
        for end in check["normal"] or ():
            if end is not None and low - 2 * size <= end <= high + 2 * size:
                low, high = min(low, end), max(high, end)
    room = _ROOM * max(high - low, size)
    return low - room * (low < 0 or not with_zero), high + room


def _span(values: Array) -> tuple[float, float]:
    """(low, high) of the finite values, never empty."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = 0.0 if high > low else max(0.05 * abs(low), 1e-6)
    return low - margin, high + margin


def _wide_span(values: Array) -> tuple[float, float]:
    """The span of the values, at least a fifth of their size, so that equal amplifiers look equal."""
    low, high = _span(values)
    margin = max(0.5 * (0.2 * max(abs(low), abs(high)) - (high - low)), 0.0)
    return low - margin, high + margin


def _scale(axes: Axes, panel: Any) -> None:
    if "x" in panel.LOG:
        axes.set_xscale("log")
    if "y" in panel.LOG:
        axes.set_yscale("log")
        if panel.YRANGE:
            axes.set_ylim(*panel.YRANGE)
    if panel.XRANGE:
        axes.set_xlim(*panel.XRANGE)


def _vector(series: Series) -> Series:
    if series.values.ndim != 1:
        rows = len(series.values)
        raise PanelError(
            f"{series.name} has {rows} rows; name one of them, {series.name}[0] to {series.name}[{rows - 1}]"
        )
    return series


def _require_same_length(given: Mapping[str, Series]) -> None:
    lengths = {name: len(series.values) for name, series in given.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise PanelError(f"values that do not belong together: {told}")


def _title_of(panel: Panel) -> str:
    return "" if isinstance(panel, Table) else ", ".join(panel.main)
