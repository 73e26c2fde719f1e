"""`qlstream warmup`: compile the kernels now, so that the first exposure need not wait."""

from __future__ import annotations

from pathlib import Path

import click

from qlstream.engine.kernel_cache import find_cache
from qlstream.engine.warmup import warm_up
from qlstream.logging import start_logging
from qlstream.settings import load_settings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with the site's settings")
def warmup(config: Path | None) -> None:
    """Compile the kernels by taking a small simulated night through the plans; does nothing if that was done."""
    settings = load_settings(config)
    start_logging("WARNING", settings.logging.file)
    seconds = warm_up(settings)
    took = f"compiled in {seconds:.0f} s" if seconds else "compiled already"
    click.echo(f"kernels: {took}; they are kept in {find_cache()}")
