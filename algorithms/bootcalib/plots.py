"""Pages that show whether a first PSF can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from algorithms.bootcalib.camera import BootPSF
from qlstream.instrument import Instrument
from qlstream.io.atomic import atomic_path

Array = NDArray[np.float64]

# Okabe & Ito (2008), with marks, so that nothing rests on colour alone
BLUE, ORANGE, GREEN, VERMILION, INK, FAINT = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#333333", "#8a94a0"
_SIZE = (9.0, 6.4)  # [inch]
_LABELLED = 45  # lines of a page that carry their wavelength


def draw_book(boot: BootPSF, instrument: Instrument, where: str, path: Path) -> int:
    """Write all pages into one PDF; returns their number.

    Parameters
    ----------
    where : which exposures of which camera, for the head of each page
    """
    count = 0
    with atomic_path(path) as temporary, PdfPages(temporary) as book:
        for figure in pages(boot, instrument, where):
            book.savefig(figure)
            count += 1
    return count


def pages(boot: BootPSF, instrument: Instrument, where: str) -> Iterator[Figure]:
    """Fibers, traces, widths, lines, wavelengths."""
    dark = f"{boot.dark.size} dark: {', '.join(map(str, boot.dark[:12]))}" if boot.dark.size else "none dark"
    yield _fibers(boot, instrument, where, f"{boot.psf.nspec} fibers, {dark}")
    x = boot.cross.residual
    scatter = 1.4826 * np.nanmedian(np.abs(x))
    yield _traces(
        boot, where, f"robust scatter {scatter:.4f} pixel, noise included; worst {np.nanmax(np.abs(x)):.3f} pixel"
    )
    yield _widths(boot, where)
    said = ", ".join(f"{name} {'off' if b == 0 else f'x {b:.2f}'}" for name, b in boot.lamps.items())
    yield _lines(boot, where, f"brightness of the lamps against the line list: {said}")
    yield _wavelengths(boot, where)


def _page(title: str, where: str, said: str, rows: int, columns: int) -> tuple[Figure, NDArray[np.object_]]:
    layout = ConstrainedLayoutEngine(rect=(0.005, 0.01, 0.985, 0.88), w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=_SIZE, layout=layout)
    figure.text(0.015, 0.965, title, fontsize=13, color=INK, va="center")
    figure.text(0.015, 0.92, f"{where}   {said}", fontsize=8.5, color=INK, va="center", parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.tick_params(labelsize=7, colors=INK)
        ax.xaxis.label.set_fontsize(8)
        ax.yaxis.label.set_fontsize(8)
    return figure, axes


def _fibers(boot: BootPSF, instrument: Instrument, where: str, said: str) -> Figure:
    """The cut through the flat, in strips, with the fibers that were found in it."""
    strips = 4 if boot.psf.nspec > 100 else 2
    figure, axes = _page("Fibers in the middle rows of the flat", where, said, strips, 1)
    column = boot.cross.origin
    height = np.interp(column, np.arange(len(boot.cut)), boot.cut)
    bundle = instrument.bundle_of(np.arange(boot.psf.nspec))
    span = np.array_split(np.arange(instrument.bundles), strips)
    top = 1.25 * float(np.quantile(height, 0.98))
    labels: dict[str, Line2D] = {}
    for ax, bundles in zip(axes[:, 0], span, strict=True):
        mine = np.isin(bundle, bundles)
        low, high = column[mine].min() - 12, column[mine].max() + 12
        at = np.arange(max(int(low), 0), min(int(high) + 1, len(boot.cut)))
        ax.plot(at, boot.cut[at], color=BLUE, linewidth=0.6)
        for lit, color, mark, name in ((True, ORANGE, ".", "fiber"), (False, VERMILION, "x", "dark fiber")):
            these = mine & (boot.cross.lit == lit)
            if these.any():
                ax.plot(column[these], height[these], mark, color=color, markersize=4 if lit else 7)
            labels[name] = Line2D([], [], linestyle="none", marker=mark, color=color, markersize=6)
        for b in bundles:
            ax.text(
                column[bundle == b].mean(), 0.93 * top, f"bundle {b}", ha="center", fontsize=7, color=INK, va="center"
            )
        ax.set(xlim=(low, high), ylim=(-0.04 * top, top), ylabel="median [electron]")
        ax.ticklabel_format(axis="y", style="plain")
    figure.legend(labels.values(), labels.keys(), fontsize=7, frameon=False, loc="upper right", ncols=2)
    axes[-1, 0].set_xlabel("column [pixel]")
    return figure


def _traces(boot: BootPSF, where: str, said: str) -> Figure:
    figure, axes = _page("Columns of the traces: measured less fitted", where, said, 2, 2)
    residual = boot.cross.residual
    fiber = np.arange(len(residual))
    seen = np.isfinite(residual)
    limit = max(float(np.quantile(np.abs(residual[seen]), 0.95)), 1e-3)
    edges = np.linspace(0, boot.cross.ny, residual.shape[1] + 1)
    mesh = axes[0, 0].pcolormesh(
        edges, np.arange(len(fiber) + 1) - 0.5, residual, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True
    )
    axes[0, 0].set(xlabel="row [pixel]", ylabel="fiber")
    bar = figure.colorbar(mesh, ax=axes[0, 0])
    bar.set_label("residual [pixel]", fontsize=8)
    bar.ax.tick_params(labelsize=7, colors=INK)
    typical = [1.4826 * np.median(np.abs(r[s])) if s.any() else np.nan for r, s in zip(residual, seen, strict=True)]
    _by_fiber(axes[0, 1], np.array(typical), BLUE, "robust scatter over rows [pixel]")
    spread = np.nanquantile(np.where(seen.any(axis=0), residual, 0.0), [0.16, 0.5, 0.84], axis=0)
    axes[1, 0].fill_between(boot.cross.row, spread[0], spread[2], color=BLUE, alpha=0.25, label="68 % of the fibers")
    axes[1, 0].plot(boot.cross.row, spread[1], color=BLUE, linewidth=1, label="median")
    axes[1, 0].axhline(0, color=INK, linewidth=0.6)
    # where an arm has no light, the scatter is that of the noise: it may leave the panel
    axes[1, 0].set(xlabel="row [pixel]", ylabel="residual [pixel]", ylim=(-2 * limit, 2 * limit))
    axes[1, 0].legend(fontsize=6.5, frameon=False)
    bow = boot.cross.column(np.array([0.0, boot.cross.ny - 1.0])) - boot.cross.origin[:, None]
    for k, (color, mark, name) in enumerate(((BLUE, "o", "first row"), (ORANGE, "s", "last row"))):
        axes[1, 1].plot(fiber, bow[:, k], mark, color=color, markersize=2.2, label=name)
    axes[1, 1].set(xlabel="fiber", ylabel="column against middle row [pixel]")
    axes[1, 1].legend(fontsize=6.5, frameon=False)
    return figure


def _widths(boot: BootPSF, where: str) -> Figure:
    traces = boot.psf.traces
    wave = np.linspace(traces.wavemin, traces.wavemax, 5)[1:-1]
    x, y = traces.xsig_vs_wave(wave), traces.ysig_vs_wave(wave)
    said = f"median across the dispersion {np.median(x):.3f}, along it {np.median(y):.3f} pixel"
    figure, axes = _page("Widths of the spots", where, said, 2, 2)
    fiber = np.arange(len(x))
    for ax, values, name in ((axes[0, 0], x, "across"), (axes[0, 1], y, "along")):
        for k, (color, mark) in enumerate(((BLUE, "o"), (GREEN, "^"), (ORANGE, "s"))):
            ax.plot(fiber, values[:, k], mark, color=color, markersize=2.2, label=f"{wave[k]:.0f} Å")
        ax.set(xlabel="fiber", ylabel=f"sigma {name} the dispersion [pixel]")
        ax.legend(fontsize=6.5, frameon=False, ncols=3)
    rows = boot.cross.row
    spread = np.quantile(boot.cross.width(rows)[boot.cross.lit], [0.16, 0.5, 0.84], axis=0)
    axes[1, 0].fill_between(rows, spread[0], spread[2], color=BLUE, alpha=0.25, label="68 % of the fibers")
    axes[1, 0].plot(rows, spread[1], color=BLUE, linewidth=1, label="median")
    axes[1, 0].set(xlabel="row [pixel]", ylabel="sigma across the dispersion [pixel]")
    axes[1, 0].legend(fontsize=6.5, frameon=False)
    ax = axes[1, 1]
    enough = np.isfinite(boot.widths).sum(axis=0) > 3
    if enough.any():
        low, middle, high = np.nanquantile(boot.widths[:, enough], [0.16, 0.5, 0.84], axis=0)
        ax.errorbar(
            boot.width_wave[enough], middle, (middle - low, high - middle), fmt="o", color=BLUE, markersize=3,
            linewidth=0.8, label="lonely lines, 68 % of the fibers",
        )  # fmt: skip
    grid = np.linspace(traces.wavemin, traces.wavemax, 100)
    ax.plot(grid, np.median(traces.ysig_vs_wave(grid), axis=0), color=ORANGE, linewidth=1, label="fitted, median")
    ax.set(xlabel="wavelength [Å]", ylabel="sigma along the dispersion [pixel]")
    inner = np.median(traces.ysig_vs_wave(grid), axis=0)
    ax.set_ylim(0.93 * inner.min(), 1.07 * inner.max())
    ax.legend(fontsize=6.5, frameon=False, loc="upper left")
    return figure


def _lines(boot: BootPSF, where: str, said: str) -> Figure:
    """The spectrum of the reference fiber, with the lines that the pattern identified."""
    found = boot.identified
    title = f"Lines identified in fiber {boot.reference}: {len(found.row)}, rms {found.rms:.3f} Å"
    figure, axes = _page(title, where, said, 3, 1)
    part = boot.psf.traces.select(np.array([boot.reference]))
    wave = part.wave_vs_y(np.arange(float(len(boot.spectrum))))[0]
    light = np.arcsinh(boot.spectrum / 20.0)
    every = max(1, round(len(found.row) / _LABELLED))
    row = np.rint(found.row).astype(int)
    for ax, piece in zip(axes[:, 0], np.array_split(np.arange(len(wave)), 3), strict=True):
        ax.plot(wave[piece], light[piece], color=BLUE, linewidth=0.6)
        mine = np.flatnonzero((row >= piece[0]) & (row <= piece[-1]))
        ax.plot(found.wave[mine], light[row[mine]], "v", color=ORANGE, markersize=3.5, label="identified")
        for k in mine[::every]:
            ax.annotate(
                f"{found.wave[k]:.1f}", (found.wave[k], light[row[k]]), xytext=(0, 5), textcoords="offset points",
                rotation=90, fontsize=5.5, ha="center", va="bottom", color=INK,
            )  # fmt: skip
        ticks = np.array([0.0, 100.0, 1e3, 1e4, 1e5])
        top = 1.3 * float(light.max())
        shown = np.arcsinh(ticks / 20.0) < top
        ax.set_yticks(np.arcsinh(ticks[shown] / 20.0), [f"{t:.0f}" for t in ticks[shown]])
        ax.set(xlim=(wave[piece[0]], wave[piece[-1]]), ylim=(-0.5, top), ylabel="flux [electron/row]")
    axes[0, 0].legend(fontsize=6.5, frameon=False, loc="upper right")
    axes[-1, 0].set_xlabel("wavelength (vacuum) [Å]")
    return figure


def _wavelengths(boot: BootPSF, where: str) -> Figure:
    traces, lines = boot.psf.traces, boot.lines
    step = 1.0 / np.median(traces.dy_dwave(lines.wave), axis=0)
    residual = -lines.residual * step  # of the wavelength at the measured row
    good = residual[:, lines.used]
    said = (
        f"{lines.used.sum()} lines, {good.shape[1] and np.isfinite(good).sum(axis=1).mean():.0f} a fiber; "
        f"rms {np.sqrt(np.nanmean(good**2)):.4f} Å; noise included"
    )
    figure, axes = _page("Wavelengths: measured lines against the solution", where, said, 2, 2)
    _by_fiber(axes[0, 0], _rms(good), BLUE, "rms over lines [Å]")
    _by_fiber(axes[0, 1], np.isfinite(good).sum(axis=1).astype(float), GREEN, "lines measured")
    ax = axes[1, 0]
    for use, color, mark, name in ((True, BLUE, "o", "used"), (False, VERMILION, "x", "left out")):
        these = np.flatnonzero((lines.used == use) & (np.isfinite(residual).sum(axis=0) > 3))
        if these.size:
            low, middle, high = np.nanquantile(residual[:, these], [0.16, 0.5, 0.84], axis=0)
            ax.errorbar(
                lines.wave[these], middle, (middle - low, high - middle), fmt=mark, color=color, markersize=3,
                linewidth=0.7, label=f"{name}, 68 % of the fibers",
            )  # fmt: skip
    ax.axhline(0, color=INK, linewidth=0.6)
    limit = 4.0 * float(np.sqrt(np.nanmean(good**2))) + 1e-4
    ax.set(xlabel="wavelength (vacuum) [Å]", ylabel="residual [Å]", ylim=(-limit, limit))
    ax.legend(fontsize=6.5, frameon=False)
    ax = axes[1, 1]
    rows = np.linspace(0.0, traces.npix_y - 1.0, 60)
    wave = traces.wave_vs_y(rows)
    for f, color, style in ((0, BLUE, "-"), (traces.nspec // 2, GREEN, "--"), (traces.nspec - 1, ORANGE, ":")):
        slope = 1.0 / traces.select(np.array([f])).dy_dwave(wave[f])[0]
        ax.plot(rows, slope, style, color=color, linewidth=1, label=f"fiber {f}")
    ax.set(xlabel="row [pixel]", ylabel="dispersion [Å/pixel]")
    ax.legend(fontsize=6.5, frameon=False)
    return figure


def _by_fiber(ax: Axes, value: Array, color: str, label: str) -> None:
    ax.plot(np.arange(len(value)), value, "o", color=color, markersize=2.2)
    top = float(np.nanmax(value)) if np.isfinite(value).any() else 1.0
    ax.set(xlabel="fiber", ylabel=label, ylim=(0.0, 1.15 * max(top, 1e-9)))


def _rms(residual: Array) -> Array:
    """(nspec,) rms of what was measured; NaN where nothing was."""
    seen = np.isfinite(residual)
    number = seen.sum(axis=1)
    total = np.where(seen, residual, 0.0)
    return np.sqrt(np.divide((total**2).sum(axis=1), number, out=np.full(len(residual), np.nan), where=number > 0))
