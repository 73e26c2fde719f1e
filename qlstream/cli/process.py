"""`qlstream process`: one camera of one exposure in the foreground, with its products and a table of verdicts."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qlstream.calibration.served import CalibrationUse
from qlstream.configs import config_path
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.io.paths import findfile
from qlstream.logging import start_logging
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult, QASeverity
from qlstream.pipeline.runner import Cost, StageFailed
from qlstream.settings import load_settings

_COLOURS = {"NORMAL": "green", "UNKNOWN": "cyan", "WARNING": "yellow", "ALARM": "bold red"}


class ProgressReporter:
    """Shows the stages as they pass."""

    def __init__(self, console: Console, progress: Progress, nstages: int) -> None:
        self.console = console
        self.progress = progress
        self.task = progress.add_task("reading", total=nstages)

    def stage_started(self, stage: str) -> None:
        self.progress.update(self.task, description=stage)

    def stage_done(self, stage: str, cost: Cost) -> None:
        self.progress.advance(self.task)
        self.console.print(
            f"  {stage:22s} {cost.wall_s:7.3f} s wall {cost.cpu_s:7.3f} s CPU {cost.peak_mb:6.0f} MB peak"
        )

    def stage_skipped(self, stage: str, reason: str) -> None:
        self.progress.advance(self.task)
        self.console.print(f"  {stage:22s} [yellow]skipped[/]: {reason}")

    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None:
        name = result.severity.name
        self.console.print(f"    [{_COLOURS[name]}]{name:8s}[/] {result.name:20s} {result.summary}", highlight=False)

    def calibration_used(self, use: CalibrationUse) -> None:
        self.console.print(f"  [dim]{use.kind.lower():12s} {use.path} ({use.origin})[/]", highlight=False)


@click.command()
@click.option("--raw", "--rawdata_dir", type=click.Path(path_type=Path), help="folder of raw exposures")
@click.option("--calib", type=click.Path(path_type=Path), help="calibration tree (DESI_SPECTRO_CALIB)")
@click.option("--redux", "--specprod_dir", type=click.Path(path_type=Path), help="production folder")
@click.option("-n", "--night", required=True, type=int, help="night, YYYYMMDD")
@click.option("-e", "--expid", required=True, type=int, help="exposure number")
@click.option("-c", "--camera", required=True, help="camera, e.g. r3")
@click.option("--instrument", help="name, YAML file, or auto for what the header says")
@click.option("--preproc", is_flag=True, help="write the preprocessed image too")
@click.option("--plans", type=click.Path(path_type=Path), help="folder of FLAVOR.yaml plans")
@click.option("--config", type=click.Path(path_type=Path), help="the site's settings")
def process(
    raw: Path | None,
    calib: Path | None,
    redux: Path | None,
    night: int,
    expid: int,
    camera: str,
    instrument: str | None,
    preproc: bool,
    plans: Path | None,
    config: Path | None,
) -> None:
    """Reduce one CAMERA of one exposure in the foreground and write its products and QA."""
    flags = {"raw": raw, "calib": calib, "redux": redux, "instrument": instrument, "engine.plans": plans}
    settings = load_settings(config, flags)
    settings.require("raw", "redux")
    assert settings.raw is not None
    assert settings.redux is not None  # `require` has seen to both
    start_logging(settings.logging.level, settings.logging.file)
    path = Path(findfile("raw", night=night, expid=expid, rawdata_dir=str(settings.raw)))
    if not path.exists():
        raise click.ClickException(f"no exposure {path}; check --raw, -n and -e")
    request = CameraRequest(
        raw=path,
        camera=camera.lower(),
        redux=settings.redux,
        calib=settings.calib,
        instrument=settings.instrument,
        requested=frozenset((*settings.engine.products, *(["preproc"] if preproc else []))),
        allow_expired=settings.engine.allow_expired,
    )
    known_plans = load_plans(settings.engine.plans)
    ranges = Ranges.load(settings.engine.ranges or config_path("qa", "quicklook"))
    console = Console(soft_wrap=True)
    columns = (TextColumn("{task.description:22s}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        longest = max(len(plan.steps) for plan in known_plans.values())
        reporter = ProgressReporter(console, progress, longest)
        try:
            reduced = reduce_camera(request, known_plans, ranges, reporter, Buffers())
        except (StageFailed, LookupError, OSError, ValueError) as error:
            raise click.ClickException(f"{request.camera} of exposure {expid} failed: {error}") from error
    _summarise(console, reduced)


def _summarise(console: Console, reduced: Reduced) -> None:
    table = Table("metric", "element", "value", "normal", "verdict", title="What is not normal", title_justify="left")
    for _, result in reduced.outcome.judged:
        for check in result.checks:
            if check.severity == QASeverity.NORMAL:
                continue
            normal = f"{check.normal[0]:g} to {check.normal[1]:g}" if check.normal else ""
            colour = _COLOURS[check.severity.name]
            shown = f"{check.measured:.4g} {check.unit}".strip()
            table.add_row(check.metric, check.element, shown, normal, f"[{colour}]{check.severity.name}[/]")
    if table.row_count:
        console.print(table)
    for kind, path in reduced.written.items():
        console.print(f"wrote {kind:11s} {path}", highlight=False)
    console.print(f"verdict: [{_COLOURS[reduced.outcome.severity.name]}]{reduced.outcome.severity.name}[/]")
