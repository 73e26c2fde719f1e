"""`qlstream config show`: every setting, its value, where the value came from, and what is allowed."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from qlstream.settings import load_settings


@click.group()
def config() -> None:
    """Show the settings in force."""


@config.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML file with the site's settings")
def show(path: Path | None) -> None:
    """List every setting with its value, where that came from, its bounds and its meaning."""
    table = Table("setting", "value", "from", "allowed", "meaning", box=None, pad_edge=False, header_style="bold")
    for row in load_settings(path).describe():
        value = "" if row.value is None else ", ".join(row.value) if isinstance(row.value, tuple) else str(row.value)
        style = "" if row.source.endswith("default.yaml") or row.source == "default" else "bold cyan"
        source = Path(row.source).name if "/" in row.source else row.source
        table.add_row(row.key, f"[{style}]{value}[/]" if style else value, source, row.bounds, row.description)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
