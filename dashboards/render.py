"""Renders the HTML fragments that are pushed to the pages. Everything from files is escaped."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Template, select_autoescape
from markupsafe import Markup, escape

from dashboards.glossary import explain
from dashboards.status import Status, status_of
from dashboards.verdict import camera_list, interval, quantity

_HERE = Path(__file__).parent


def render(template: str, /, **values: Any) -> str:
    """The fragment `templates/fragments/TEMPLATE.html` with these values."""
    return _fragments.get_template(f"{template}.html").render(**values).strip()


def page_template(name: str) -> Template:
    """The frame of a page, `templates/NAME.html`; it is filled by Bokeh, not by us."""
    return _pages.get_template(f"{name}.html")


def symbol(status: Status, label: bool = True) -> Markup:
    """The shape of a state in its color; read aloud as its word unless a label stands beside it."""
    aria = f'role="img" aria-label="{status.word}"' if label else 'aria-hidden="true"'
    return Markup(f'<svg class="sym s-{status.shape}" {aria}><use href="#sym-{status.shape}"></use></svg>')


def night_words(night: int) -> str:
    """20260115 as "15 January 2026"."""
    try:
        return dt.datetime.strptime(str(night), "%Y%m%d").strftime("%-d %B %Y")
    except ValueError:
        return str(night)


def clock(utc: float | None, seconds: bool = True) -> str:
    """Seconds since 1970 as hours and minutes UTC; "" if unknown."""
    if utc is None:
        return ""
    return dt.datetime.fromtimestamp(utc, dt.UTC).strftime("%H:%M:%S" if seconds else "%H:%M")


def ago(utc: float | None) -> Markup:
    """A time that counts up in the browser."""
    if utc is None:
        return Markup("")
    stamp = dt.datetime.fromtimestamp(utc, dt.UTC).isoformat(timespec="seconds")
    return Markup(f'<time data-since="{utc:.3f}" datetime="{stamp}">{clock(utc)} UTC</time>')


def link(path: str, **query: Any) -> str:
    """A URL of the dashboard; arguments that are None or "" are left out."""
    parts = "&".join(f"{key}={value}" for key, value in query.items() if value not in (None, ""))
    return f"{path}?{parts}" if parts else path


def seconds(value: float | None) -> str:
    """A duration as people read it."""
    if value is None:
        return ""
    if value >= 120:
        return f"{value / 60:.0f} min"
    return f"{value:.0f} s" if value >= 10 or value == 0 else f"{value:.1f} s"


_fragments = Environment(
    loader=FileSystemLoader([_HERE / "templates" / "fragments"]),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
_fragments.globals.update(
    Status=Status, ago=ago, camera_list=camera_list, clock=clock, explain=explain, interval=interval, link=link,
    night_words=night_words, quantity=quantity, seconds=seconds, status_of=status_of, symbol=symbol, escape=escape,
)  # fmt: skip
_pages = Environment(loader=FileSystemLoader([_HERE / "templates"]))
