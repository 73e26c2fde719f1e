"""`qlstream process`: one camera of one exposure in the foreground, with its products and a table of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qlstream.calibration.served import CalibrationUse
from qlstream.cli.options import LogLevel, Night, Words
from qlstream.datamodel.flavor import flavor_of
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.engine.plots import PlotMaker, plot_maker, write_plots
from qlstream.engine.qafiles import merged_qa
from qlstream.io.paths import findfile
from qlstream.io.raw import read_exposure_header
from qlstream.logging import start_logging
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import Plan, PlanError, load_plans, require_products
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult, QASeverity
from qlstream.pipeline.runner import Cost, StageFailed
from qlstream.settings import Settings, load_settings

_COLOURS = {"NORMAL": "green", "UNKNOWN": "cyan", "WARNING": "yellow", "ALARM": "bold red"}
_FILE = click.Path(path_type=Path)
_BUILT_IN = ""  # of --qlplots without a value
_NO_TEMPLATES = "references come from the reference ranges, which are learned from past nights, not from one template"

F = TypeVar("F", bound=Callable[..., Any])


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


def _options(command: F) -> F:
    """The options in the order of `--help`; where QuickLook had another name for one, it works too."""
    for option in (
        click.option("-n", "--night", required=True, type=Night(), help="night, YYYYMMDD"),
        click.option("-e", "--expid", required=True, type=click.IntRange(min=0), help="exposure number"),
        click.option("-c", "--camera", required=True, help="camera, e.g. r3"),
        click.option("-i", "--plan", "--config_file", "plan_file", type=_FILE, help="a plan; default the flavor's own"),
        click.option("--plans", type=_FILE, help="folder of FLAVOR.yaml plans"),
        click.option("--raw", "--rawdata_dir", type=_FILE, help="folder of raw exposures (QL_SPEC_DATA)"),
        click.option("--calib", type=_FILE, help="calibration tree (DESI_SPECTRO_CALIB)"),
        click.option("--redux", "--specprod_dir", type=_FILE, help="production folder (QL_SPEC_REDUX)"),
        click.option("--instrument", help="name, YAML file, or auto for what the header says"),
        click.option("--badamps", metavar="LIST", help="amplifiers known to be bad, such as b7D,z8A"),
        click.option("--psfid", type=int, metavar="EXPID", help="start from the traces of this exposure"),
        click.option("--flatid", type=int, metavar="EXPID", help="use the fiber flat of this exposure"),
        click.option("--resolution", is_flag=True, help="resolution from the line widths of the traces (usesigma)"),
        click.option("--dump", type=Words(), default=(), metavar="KIND,...", help="write these outputs of stages too"),
        click.option("--preproc", is_flag=True, help="the same as --dump preproc"),
        click.option(
            "--qa-files", type=click.Choice(["none", "json", "yaml"]), help="a file for each metric, ql-STEM-..."
        ),
        click.option("--mergeQA", "merge_qa", is_flag=True, help="accepted; the merged QA is always written"),
        click.option(
            "--singleQA", "single_qa", metavar="NAME", help="one metric alone: NAME, NAME@STAGE or package.module:NAME"
        ),
        click.option(
            "-p", "--qlplots", "qlplots", is_flag=False, flag_value=_BUILT_IN, metavar="[YAML]",
            help="draw each metric, by the built-in pages or those of a file",
        ),
        click.option("--plot-format", type=click.Choice(["png", "pdf"]), help="of the plots"),
        click.option("--templateid", type=int, metavar="EXPID", help="accepted; " + _NO_TEMPLATES),
        click.option("--templatenight", type=int, metavar="NIGHT", help="accepted, as --templateid"),
        click.option("--loglvl", "--log-level", "log_level", type=LogLevel(), help="10, 20 ... or DEBUG, INFO ..."),
        click.option("--log-file", type=_FILE, help="JSON lines beside the text on the terminal"),
        click.option("--config", type=_FILE, help="the site's settings"),
    )[::-1]:  # fmt: skip
        command = option(command)
    return command


@click.command()
@_options
def process(
    night: int,
    expid: int,
    camera: str,
    plan_file: Path | None,
    plans: Path | None,
    psfid: int | None,
    flatid: int | None,
    resolution: bool,
    dump: tuple[str, ...],
    preproc: bool,
    merge_qa: bool,
    single_qa: str | None,
    qlplots: str | None,
    templateid: int | None,
    templatenight: int | None,
    config: Path | None,
    **given: Any,
) -> None:
    """Reduce one CAMERA of one exposure in the foreground and write its products and QA."""
    settings = load_settings(config, _flags(given, plans, qlplots))
    settings.require("raw", "redux")
    assert settings.raw is not None
    assert settings.redux is not None  # `require` has seen to both
    start_logging(settings.logging.level, settings.logging.file)
    for name, value in (("--templateid", templateid), ("--templatenight", templatenight)):
        if value is not None:
            click.echo(f"{name} {value} changes nothing: {_NO_TEMPLATES}", err=True)
    path = Path(findfile("raw", night=night, expid=expid, rawdata_dir=str(settings.raw)))
    if not path.exists():
        raise click.ClickException(f"no exposure {path}; check --raw, -n and -e")
    plan, requested = _choose(
        _plan_for(path, expid, plan_file, settings),
        (*settings.engine.products, *dump, *(["preproc"] if preproc else [])),
        single_qa,
        resolution,
    )
    maker = plot_maker(settings) if qlplots is not None else None
    qa_files = settings.engine.qa_files
    request = CameraRequest(
        raw=path,
        camera=camera.lower(),
        redux=settings.redux,
        calib=settings.calib,
        dark=settings.dark,
        badamps=settings.engine.badamps,
        instrument=settings.instrument,
        requested=requested,
        allow_expired=settings.engine.allow_expired,
        products=single_qa is None,
        qa_files="json" if single_qa is not None and qa_files == "none" else qa_files,
        psfid=psfid,
        flatid=flatid,
    )
    ranges = Ranges.from_settings(settings)
    console = Console(soft_wrap=True)
    reduced, error = _reduce(request, plan, ranges, console)
    if reduced is not None:
        _draw(reduced, plan, maker, settings)
        if single_qa is not None:
            _print_results(console, reduced)
        _summarise(console, reduced)
    if error is not None:
        raise click.ClickException(f"{request.camera} of exposure {expid} failed: {error}") from error
    if single_qa is not None and reduced is not None and not reduced.outcome.judged:
        why = "; ".join(f"{stage} was skipped: {reason}" for stage, reason in reduced.outcome.skipped.items())
        raise click.ClickException(f"{single_qa} could not run, since {why}")


def _flags(given: Mapping[str, Any], plans: Path | None, qlplots: str | None) -> dict[str, Any]:
    """Settings by their keys, as the command line gives them."""
    return {
        **{key: given[key] for key in ("raw", "calib", "redux", "instrument")},
        "engine.plans": plans,
        "engine.badamps": given["badamps"],
        "engine.qa_files": given["qa_files"],
        "plots.config": qlplots or None,
        "plots.format": given["plot_format"],
        "logging.level": given["log_level"],
        "logging.file": given["log_file"],
    }


def _plan_for(path: Path, expid: int, plan_file: Path | None, settings: Settings) -> Plan:
    """The plan of this very exposure: the one that was given, if it fits, or that of its flavor."""
    try:
        flavor = flavor_of(read_exposure_header(path))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if plan_file is None:
        return load_plans(settings.engine.plans)[flavor]
    plan = Plan.load(plan_file)
    if plan.flavor != flavor:
        raise click.ClickException(
            f"exposure {expid} is of flavor {flavor}, but {plan_file} is a plan for {plan.flavor} exposures; "
            "give another one by -i, or leave -i out for the plan of the flavor"
        )
    return plan


def _choose(
    plan: Plan, products: tuple[str, ...], single_qa: str | None, resolution: bool
) -> tuple[Plan, frozenset[str]]:
    """The plan with what the command line changes of it, and the products to write beside its own.

    A product that the plan gives as its quick variant may be asked for by its usual name: fframe is qfframe.

    Raises
    ------
    PlanError : naming everything that cannot be done
    """
    wrong: list[str] = []
    kinds = [f"q{kind}" if kind not in plan.products and f"q{kind}" in plan.products else kind for kind in products]
    try:
        require_products([plan], kinds)
    except PlanError as error:
        wrong.append(f"--dump: {error}")
    if resolution:
        try:
            plan = plan.with_params(usesigma=True)
        except PlanError as error:
            wrong.append(f"--resolution: {error}")
    if single_qa is not None:
        try:
            plan = plan.only(single_qa)
        except PlanError as error:
            wrong.append(f"--singleQA: {error}")
    if wrong:
        raise PlanError("\n".join(wrong))
    return plan, frozenset(kinds)


def _reduce(
    request: CameraRequest, plan: Plan, ranges: Ranges, console: Console
) -> tuple[Reduced | None, Exception | None]:
    """What there is of the camera, and why there is no more."""
    found: list[Reduced] = []
    failure: Exception | None = None
    columns = (TextColumn("{task.description:22s}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        reporter = ProgressReporter(console, progress, len(plan.steps))
        try:
            reduce_camera(request, {plan.flavor: plan}, ranges, reporter, Buffers(), take=found.append)
        except (StageFailed, LookupError, OSError, ValueError) as error:
            failure = error
    return (found[0] if found else None), failure


def _draw(reduced: Reduced, plan: Plan, maker: PlotMaker | None, settings: Settings) -> None:
    if maker is None or not reduced.outcome.judged:
        return
    assert settings.redux is not None
    merged = merged_qa(reduced.context, plan, reduced.outcome)
    for name, path in write_plots(maker, merged, settings.redux, settings.plots.format).items():
        reduced.written[f"plot of {name}"] = path


def _print_results(console: Console, reduced: Reduced) -> None:
    """Every value of the metrics that ran; of the fibers their middle and ends."""
    for stage, result in reduced.outcome.judged:
        table = Table("key", "element", "value", title=f"{result.name} on {stage}", title_justify="left")
        groups: list[tuple[str, Mapping[str, Any]]] = [
            *((key, {"": value}) for key, value in result.metrics.items()),
            *result.per_amp.items(),
            *result.per_class.items(),
        ]
        for key, values in groups:
            for element, value in values.items():
                shown = "none" if value is None else f"{value:.6g} {result.units.get(key, '')}"
                table.add_row(key, element, shown.strip())
        for key, array in (*result.per_fiber.items(), *result.vectors.items()):
            table.add_row(key, f"{len(array)} values", _span(np.asarray(array), result.units.get(key, "")))
        console.print(table)


def _span(array: np.ndarray[Any, Any], unit: str) -> str:
    if array.dtype.kind not in "fiub" or not np.isfinite(array).any():
        return "no number"
    low, middle, high = (f(array) for f in (np.nanmin, np.nanmedian, np.nanmax))
    return f"{middle:.6g} ({low:.6g} to {high:.6g}) {unit}".strip()


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
