"""The command `qlstream`; each sub-command is imported when it is called, so that help and errors come at once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from qlstream import __version__
from qlstream.engine.isolation import set_one_thread
from qlstream.engine.kernel_cache import find_cache

# name -> (where it is, what `qlstream --help` says of it)
COMMANDS = {
    "demo": ("qlstream.cli.demo:demo", "Simulate a small night and stream it into the live dashboard."),
    "run": ("qlstream.cli.run:run", "Process exposures as they arrive, and show them on the dashboard."),
    "replay": ("qlstream.cli.run:replay", "Stream a stored night through the pipeline as if it arrived now."),
    "reduce": ("qlstream.cli.reduce:reduce", "Reduce a whole night offline, from raw exposures to coadds."),
    "process": ("qlstream.cli.process:process", "Reduce one camera of one exposure in the foreground."),
    "plots": ("qlstream.cli.plots:plots", "Draw the stored results of an exposure, to print or to mail."),
    "fibermap": ("qlstream.cli.fibermap:fibermap", "Put a fibermap together, or compare tables of assignments."),
    "simulate": ("qlstream.cli.simulate:simulate", "Make a night of raw exposures with known truth."),
    "dashboard": ("qlstream.cli.dashboard:dashboard", "Serve the pages of stored nights."),
    "status": ("qlstream.cli.status:status", "Print a night as a table."),
    "doctor": ("qlstream.cli.doctor:doctor", "Check this machine, and say what is missing and what to do."),
    "warmup": ("qlstream.cli.warmup:warmup", "Compile the kernels, so that the first exposure need not wait."),
    "ranges": ("qlstream.cli.ranges:ranges", "Learn what is normal for each camera; show what judges a metric."),
    "config": ("qlstream.cli.config:config", "Show the settings in force."),
}

# steps of the offline reduction on files
STEPS = {
    "preproc": ("algorithms.steps.preproc:PreprocStep", "Preprocess one camera of a raw exposure."),
    "bootcalib": ("algorithms.steps.bootcalib:BootcalibStep", "Find traces and wavelengths without any PSF."),
    "fit-psf": ("algorithms.steps.psf:FitPSFStep", "Fit the PSF of a camera to an arc."),
    "mean-psf": ("algorithms.steps.psf:MeanPSFStep", "Average the PSFs of a night."),
    "trace-shifts": ("algorithms.steps.traceshift:TraceShiftStep", "Move a PSF with the spectra of an exposure."),
    "extract": ("algorithms.steps.extract:ExtractStep", "Extract the spectra of one camera."),
    "fiberflat": ("algorithms.steps.fiberflat:FiberFlatStep", "Compute a fiber flat from the frame of a flat."),
    "average-fiberflat": ("algorithms.steps.fiberflat:AverageFiberFlatStep", "Average the fiber flats of a camera."),
    "autocalib-fiberflat": (
        "algorithms.steps.fiberflat:AutocalibFiberFlatStep",
        "Bring the fiber flats of all petals to one scale.",
    ),
    "sky": ("algorithms.steps.sky:SkyStep", "Model the sky of a science frame."),
    "stdstars": ("algorithms.steps.stars:StarStep", "Fit models to the standard stars of a petal."),
    "fluxcalib": ("algorithms.steps.stars:FluxCalibStep", "Compute the flux calibration of a frame."),
    "average-fluxcalib": (
        "algorithms.steps.fluxaverage:AverageFluxCalibStep",
        "Average the flux calibrations of a camera, with airmass and seeing terms.",
    ),
    "process-exposure": (
        "algorithms.steps.cframe:ProcessExposureStep",
        "Flat-field, sky-subtract, calibrate a frame.",
    ),
    "group-spectra": ("algorithms.steps.spectra:GroupStep", "Gather calibrated frames into one file of spectra."),
    "redshifts": ("algorithms.steps.redshift:RedshiftStep", "Measure redshifts of a coadd with redrock."),
    "coadd": ("algorithms.steps.spectra:CoaddStep", "Coadd the exposures of each target."),
}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *STEPS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in STEPS:
            steps = importlib.import_module("qlstream.cli.steps")
            made: click.Command = steps.step_command(name, STEPS[name][0])
            return made
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and args[0] not in STEPS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}; there are {', '.join([*COMMANDS, *STEPS])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Steps of the offline reduction, on files"):
            formatter.write_dl([(name, text) for name, (_, text) in STEPS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qlstream")
@click.option("--debug", is_flag=True, help="show the traceback of an error")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Real-time quicklook for fiber-fed multi-object spectrographs that speak the DESI data format."""
    ctx.obj = {"debug": debug}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; an error is one clear message and a status other than 0.

    The status is 2 for a wrong command line or setting, 130 after Ctrl-C, 1 for any other error.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args[:1] or os.environ.get("QLSTREAM_DEBUG", "") not in ("", "0")
    try:
        find_cache()
        set_one_thread()  # before numpy is imported; cameras are the parallelism
        status: Any = cli.main(args, prog_name="qlstream", standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        if debug and error.__cause__ is not None:
            raise
        error.show()
        status = error.exit_code
    except Exception as error:
        if debug:
            raise
        click.echo(f"Error: {_in_words(error)}", err=True)
        status = 2 if type(error).__name__ in ("SettingsError", "PlanError") else 1
    sys.exit(status if isinstance(status, int) else 0)


def _in_words(error: Exception) -> str:
    """Our own errors speak for themselves; for others the type and the way to the traceback help."""
    text = str(error)
    if type(error).__module__.startswith("qlstream") and text:
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text}\n`qlstream --debug ...` shows where it happened"


if __name__ == "__main__":
    main()
