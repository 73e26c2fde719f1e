"""Every setting in one typed model, and where each value comes from."""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo

from qlstream.configs import config_path

_QUICKLOOK = {"raw": "QL_SPEC_DATA", "redux": "QL_SPEC_REDUX"}
_HINT = "`qlstream config show` lists every key with its bounds"


class SettingsError(ValueError):
    """Wrong settings; the message names every mistake with its key, bound, value and source."""

    def __init__(self, wrong: list[str]) -> None:
        count = f"{len(wrong)} wrong setting{'s' if len(wrong) > 1 else ''}"
        super().__init__("\n".join([count, *(f"  {w}" for w in wrong), _HINT]))
        self.wrong = wrong


class Section(BaseModel):
    """A group of settings: cannot be changed once made, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _split(value: Any) -> Any:
    """Lists come as text from the environment and the command line: "preproc, psf"."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _expand(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_split)]
Folder = Annotated[Path, BeforeValidator(_expand)]


class IngestSettings(Section):
    """How raw files are noticed and when they are ready."""

    watch: Literal["auto", "inotify", "poll", "scan"] = Field(
        default="auto", description="source of hints; auto is inotify on local disks, scan on network file systems"
    )
    scan_s: float = Field(default=10.0, gt=0, le=3600, description="time between scans of the watched nights [s]")
    poll_s: float = Field(default=1.0, gt=0, le=60, description="time between looks when watch is poll [s]")
    nights: int = Field(default=2, ge=1, description="the newest so many nights are scanned again and again")
    wide_nights: int = Field(default=7, ge=1, description="the newest so many nights are scanned now and then")
    wide_scan_s: float = Field(default=300.0, gt=0, description="time between scans of the wide_nights [s]")
    only_nights: Numbers = Field(default=(), description="watch just these nights (YYYYMMDD), if any is given")
    settle_s: float | None = Field(
        default=None,
        ge=0,
        le=600,
        description="size and mtime unchanged for so long [s]; unset is 2, network file systems 10",
    )
    give_up_s: float = Field(
        default=60.0, gt=0, description="an unchanged file that is not whole is incomplete after [s]"
    )
    fibermap_wait_s: float = Field(
        default=60.0, ge=0, description="wait for the fibermap of a tile, or the files that make it, this long [s]"
    )


class EngineSettings(Section):
    """How cameras are processed."""

    workers: int | None = Field(default=None, ge=1, le=1024, description="worker processes; unset is one per core")
    camera_timeout: float = Field(default=300.0, gt=0, description="a camera that takes longer is stopped [s]")
    memory_limit_mb: int = Field(default=3000, ge=200, description="data memory of a worker [MB]")
    retries: int = Field(default=1, ge=0, le=10, description="further tries of a camera whose worker died or hung")
    tasks_per_worker: int = Field(default=0, ge=0, description="a worker is replaced after so many cameras; 0 is never")
    calibration_wait_s: float = Field(
        default=600.0, ge=0, description="an exposure waits for tonight's unfinished calibrations at most this long [s]"
    )
    stop_grace_s: float = Field(
        default=30.0, ge=0, description="running cameras may end within this time at shutdown [s]"
    )
    low_water_mb: int = Field(
        default=500, ge=0, description="pause while less than this is free on the disk of the production folder [MB]"
    )
    heartbeat_s: float = Field(default=10.0, gt=0, le=600, description="time between signs of life in the store [s]")
    products: Words = Field(default=(), description="products wanted beside those of the plans, e.g. preproc")
    qa_files: Literal["none", "json", "yaml"] = Field(
        default="none", description="a file for each metric beside the merged QA of the camera"
    )
    badamps: str = Field(
        default="",
        pattern=r"^\s*([brzBRZ]\d[A-Da-d](\s*,\s*[brzBRZ]\d[A-Da-d])*)?\s*$",
        description="amplifiers that are known to be bad, such as b7D,z8A: masked, not judged, their fibers flagged",
    )
    allow_expired: bool = Field(
        default=True, description="an expired calibration serves, with a warning, where none is valid"
    )
    plans: Folder | None = Field(
        default=None, description="folder of FLAVOR.yaml plans; unset is the shipped quicklook plans"
    )
    ranges: Folder | None = Field(
        default=None, description="file or folder of reference ranges; unset are the shipped ones"
    )
    learned_ranges: Folder | None = Field(
        default=None, description="folder of learned reference ranges; unset is REDUX/qlstream/ranges"
    )


class OfflineSettings(Section):
    """The full reduction, downstream of the quicklook."""

    enabled: bool = Field(default=False, description="reduce exposures offline as they finish, at low priority")
    plan: Folder | None = Field(default=None, description="YAML of the offline plan; unset is the shipped one")
    task_timeout: float = Field(default=3600.0, gt=0, description="a task that takes longer is stopped [s]")
    memory_limit_mb: int = Field(default=6000, ge=200, description="data memory of a task [MB]")


class DashboardSettings(Section):
    """The pages."""

    enabled: bool = Field(default=True, description="start the dashboard with `qlstream run`")
    host: str = Field(
        default="127.0.0.1", description="address to listen on; others than loopback can be reached from outside"
    )
    port: int = Field(default=5006, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    origins: Words = Field(default=(), description="HOST:PORT from which pages may be opened, beside the own address")
    app: str = Field(
        default="dashboards.app:main", pattern=r"^[\w.]+:\w+$", description="the application, package.module:name"
    )
    max_sessions: int = Field(default=50, ge=1, description="open pages at a time")
    glossary: Folder | None = Field(
        default=None, description="YAML file or folder with a site's words for the metrics it adds"
    )


class PlotSettings(Section):
    """Static plots, for those who print or mail them."""

    maker: str = Field(
        default="qa.plots.book:PlotBook", pattern=r"^[\w.]+:\w+$", description="what draws them, package.module:Class"
    )
    config: Folder | None = Field(default=None, description="YAML with the pages; unset are the shipped ones")
    format: Literal["png", "pdf"] = Field(default="png", description="of the plot of one metric")


class LoggingSettings(Section):
    """What is logged, and where to."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="least severity that is logged"
    )
    file: Folder | None = Field(default=None, description="file for JSON lines beside the terminal's text")


class Settings(Section):
    """Every setting of qlstream."""

    raw: Folder | None = Field(default=None, description="folder of raw exposures, NIGHT/EXPID/desi-EXPID.fits.fz")
    calib: Folder | None = Field(default=None, description="calibration tree (DESI_SPECTRO_CALIB)")
    dark: Folder | None = Field(
        default=None, description="series of darks and biases that override those of the tree (DESI_SPECTRO_DARK)"
    )
    redux: Folder | None = Field(default=None, description="production folder: all products, and the store by default")
    store: str | None = Field(default=None, description="URL of the store; unset is sqlite:///REDUX/qlstream.db")
    instrument: str = Field(default="auto", description="name, path of a YAML file, or auto for what the header says")
    offline: OfflineSettings = Field(default_factory=OfflineSettings, description="the full reduction, downstream")
    ingest: IngestSettings = Field(default_factory=IngestSettings, description="how raw files are noticed")
    engine: EngineSettings = Field(default_factory=EngineSettings, description="how cameras are processed")
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings, description="the pages")
    plots: PlotSettings = Field(default_factory=PlotSettings, description="static plots")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="logs")

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def require(self, *keys: str) -> None:
        """Ask for settings that this command cannot do without.

        Raises
        ------
        SettingsError : naming every one that is not given, and how to give it
        """
        wrong = [
            f"{key}: not given; use --{key}, {_variable(key)}{_or_fallback(key)}, or a file by --config"
            for key in keys
            if getattr(self, key) is None
        ]
        if wrong:
            raise SettingsError(wrong)

    def describe(self) -> list[Setting]:
        """Every setting with its value, source, type, bounds and meaning, in the order of the model."""
        rows = []
        for key, info in _leaves(Settings):
            value: Any = self
            for part in key.split("."):
                value = getattr(value, part)
            source = self._sources.get(key, "default")
            rows.append(Setting(key, value, source, _bounds(info), info.description or ""))
        return rows


@dataclass(frozen=True)
class Setting:
    """One line of `qlstream config show`."""

    key: str
    value: Any
    source: str
    bounds: str
    description: str


def load_settings(
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Put together the settings; the later source wins: shipped default.yaml, the DESI_* variables for the folders,
    QuickLook's QL_SPEC_* variables for them, the site's YAML, QLSTREAM_* variables (QLSTREAM_ENGINE_WORKERS is
    engine.workers), flags.

    Parameters
    ----------
    config : the site's YAML; None is the file that QLSTREAM_CONFIG names, if any
    flags : dotted key -> value from the command line; None means not given
    environ : default os.environ

    Raises
    ------
    SettingsError : naming every mistake of every source
    """
    environ = os.environ if environ is None else environ
    wrong: list[str] = []
    found: dict[str, tuple[Any, str]] = {}
    files = [config_path("default.yaml")]
    if config is None and environ.get("QLSTREAM_CONFIG"):
        config = Path(environ["QLSTREAM_CONFIG"])
    found.update(_from_yaml(files[0], wrong))
    found.update(_from_desi_variables(environ))
    if config is not None:
        found.update(_from_yaml(config, wrong))
    found.update(_from_environment(environ, wrong))
    found.update({key: (value, f"--{_flag(key)}") for key, value in (flags or {}).items() if value is not None})

    nested: dict[str, Any] = {}
    known = dict(_leaves(Settings))
    for key, (value, source) in found.items():
        if key not in known:
            wrong.append(f"{key}: no such setting{_nearest(key, known)} ({source})")
            continue
        *sections, name = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        for e in error.errors():
            key = ".".join(str(part) for part in e["loc"] if isinstance(part, str))
            key = next((k for k in known if key == k or key.startswith(f"{k}.")), key)
            wrong.append(f"{key}: {e['msg']}, got {e['input']!r} ({found[key][1] if key in found else 'default'})")
        raise SettingsError(wrong) from None
    if wrong:
        raise SettingsError(wrong)
    settings._sources.update({key: source for key, (_, source) in found.items()})
    return settings


def _from_yaml(path: Path, wrong: list[str]) -> dict[str, tuple[Any, str]]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        wrong.append(f"{path}: cannot be read: {' '.join(str(error).split())}")
        return {}
    if not isinstance(content, dict):
        wrong.append(f"{path}: expected keys with values, got {content!r}")
        return {}
    sections = {key.split(".")[0] for key, _ in _leaves(Settings) if "." in key}
    found: dict[str, tuple[Any, str]] = {}
    for key, value in content.items():
        if key not in sections:
            found[str(key)] = value, str(path)
        elif isinstance(value, dict):
            found.update({f"{key}.{name}": (inner, str(path)) for name, inner in value.items()})
        elif value is not None:
            wrong.append(f"{key}: expected keys with values, got {value!r} ({path})")
    return found


def _from_desi_variables(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    if environ.get("DESI_SPECTRO_DATA"):
        found["raw"] = environ["DESI_SPECTRO_DATA"], "DESI_SPECTRO_DATA"
    if environ.get("DESI_SPECTRO_CALIB"):
        found["calib"] = environ["DESI_SPECTRO_CALIB"], "DESI_SPECTRO_CALIB"
    if environ.get("DESI_SPECTRO_DARK"):
        found["dark"] = environ["DESI_SPECTRO_DARK"], "DESI_SPECTRO_DARK"
    if environ.get("DESI_SPECTRO_REDUX") and environ.get("SPECPROD"):
        folder = Path(environ["DESI_SPECTRO_REDUX"], environ["SPECPROD"])
        found["redux"] = str(folder), "DESI_SPECTRO_REDUX/SPECPROD"
    for key, name in _QUICKLOOK.items():  # where both are set, DESI_SPECTRO_REDUX is the offline production
        if environ.get(name):
            found[key] = environ[name], name
    return found


def _from_environment(environ: Mapping[str, str], wrong: list[str]) -> dict[str, tuple[Any, str]]:
    """Values of QLSTREAM_* variables; one that begins like a section but names no key of it is a mistake."""
    keys = {_variable(key): key for key, _ in _leaves(Settings)}
    sections = tuple(f"{_variable(key.split('.')[0])}_" for key in keys.values() if "." in key)
    found: dict[str, tuple[Any, str]] = {}
    for name, text in environ.items():
        if name in keys and text:
            found[keys[name]] = text, name
        elif name not in keys and name.startswith(sections):
            wrong.append(f"{name}: no such setting{_nearest(name, keys)} (environment)")
    return found


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def _variable(key: str) -> str:
    return "QLSTREAM_" + key.upper().replace(".", "_")


def _flag(key: str) -> str:
    return key.split(".")[-1].replace("_", "-")


def _or_fallback(key: str) -> str:
    variables = {
        "raw": "QL_SPEC_DATA, DESI_SPECTRO_DATA",
        "calib": "DESI_SPECTRO_CALIB",
        "redux": "QL_SPEC_REDUX, DESI_SPECTRO_REDUX with SPECPROD",
    }
    return f", {variables[key]}" if key in variables else ""


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _bounds(info: FieldInfo) -> str:
    """The type and limits of a setting in words, e.g. "number > 0, <= 3600; or unset"."""
    kinds = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    parts = _members(info.annotation)
    words = []
    for part in parts:
        if typing.get_origin(part) is Literal:
            words.append(" | ".join(str(a) for a in typing.get_args(part)))
        elif typing.get_origin(part) is tuple:
            words.append(f"list of {kinds[typing.get_args(part)[0]]}s")
        elif part is not type(None):
            words.append(kinds[part])
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [f"{sign} {getattr(m, k)}" for m in info.metadata for k, sign in signs.items() if hasattr(m, k)]
    text = " ".join([*words, ", ".join(limits)]).strip()
    return f"{text}; or unset" if type(None) in parts else text


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, each without its validators."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    return tuple(typing.get_args(m)[0] if typing.get_origin(m) is Annotated else m for m in members)
