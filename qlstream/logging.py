"""Structured logs, tagged with expid, camera and stage: text for the terminal, JSON lines for a file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import orjson

_ROOT = "qlstream"
_TAGS = ("expid", "camera", "stage", "elapsed_s")  # of the JSON lines, where a line has them
_stage: ContextVar[str | None] = ContextVar("stage", default=None)


class ExposureLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines carry the exposure and the camera they belong to."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), "stage": _stage.get(), **kwargs.get("extra", {})}
        return msg, kwargs


@contextmanager
def stage_log(stage: str) -> Iterator[None]:
    """Within the block, the lines of every ExposureLog carry the name of this stage or metric."""
    token = _stage.set(stage)
    try:
        yield
    finally:
        _stage.reset(token)


def get_log(name: str) -> logging.Logger:
    """The logger of a part of qlstream, e.g. "ingest"."""
    return logging.getLogger(f"{_ROOT}.{name}")


def exposure_log(expid: int, camera: str | None = None, name: str = "camera") -> ExposureLog:
    """A logger for one exposure, or one camera of it."""
    return ExposureLog(get_log(name), {"expid": expid, "camera": camera})


def start_logging(level: str = "INFO", file: Path | None = None) -> None:
    """Send the logs of this process to standard error, and as JSON lines to `file` if one is given.

    `level` holds for qlstream; of other libraries only warnings and errors are shown. Several processes may write to
    one file: each line is one append. A file that was rotated away is made anew.
    """
    handlers: list[logging.Handler] = []
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_Text())
    handlers.append(terminal)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = WatchedFileHandler(file, encoding="utf-8")
        lines.setFormatter(_Json())
        handlers.append(lines)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT).setLevel(level)


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Within the block, what this process would tell the terminal goes to `file`, which is made anew.

    Raises
    ------
    OSError : it cannot be written
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    before = root.handlers[:]
    lines = logging.FileHandler(file, mode="w", encoding="utf-8")
    lines.setFormatter(_Text())
    root.handlers = [lines, *(handler for handler in before if isinstance(handler, logging.FileHandler))]
    try:
        yield
    finally:
        root.handlers = before
        lines.close()


class _Text(logging.Formatter):
    """`2026-01-15T07:12:03Z WARNING camera 00000082 r3 Preproc: message`"""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        expid, camera, stage = (getattr(record, tag, None) for tag in _TAGS[:3])
        tags = [record.name.removeprefix(f"{_ROOT}.")]
        tags += [f"{expid:08d}"] if expid is not None else []
        tags += [tag for tag in (camera, stage) if tag]
        text = f"{when} {record.levelname} {' '.join(tags)}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time_utc": record.created,
            "level": record.levelname,
            "part": record.name.removeprefix(f"{_ROOT}."),
            "pid": record.process,
            "message": record.getMessage(),
        }
        for tag in _TAGS:
            if (value := getattr(record, tag, None)) is not None:
                line[tag] = value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()
