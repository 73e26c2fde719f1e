"""Files of learned reference ranges: `ranges-YYYYMMDD.yaml`, each valid from its night on."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlstream.io.atomic import atomic_path
from qlstream.pipeline.rule import LearnedRule

_NAME = re.compile(r"^ranges-(\d{8})\.yaml$")
_log = logging.getLogger("qlstream.ranges")


class Provenance(BaseModel):
    """What a file of learned ranges was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_utc: str
    by: str = Field(description="program and version")
    nights: tuple[int, ...] = Field(min_length=1, description="nights with exposures that were used")
    exposures: int
    taken: str = Field(description="which results were good enough to learn from")
    around: str = Field(description="version of the hand-written ranges that it was learned within")


class _LearnedFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    valid_from: int = Field(ge=20000101, le=21000101, description="first night that it judges")
    learned: Provenance
    rules: list[LearnedRule]


class LearnedRanges:
    """The rules of one file.

    Attributes
    ----------
    valid_from : first night
    provenance : what they were made of
    rules : in the order of the file
    version : for the record of a check: the night and a digest of the content
    """

    def __init__(
        self, valid_from: int, provenance: Provenance, rules: Sequence[LearnedRule], version: str = ""
    ) -> None:
        self.valid_from = valid_from
        self.provenance = provenance
        self.rules = tuple(rules)
        self.version = version
        self._of: dict[tuple[str, str], list[LearnedRule]] = {}
        for rule in rules:
            for camera in rule.where.get("camera", [""]):
                self._of.setdefault((rule.metric, camera.lower()), []).append(rule)

    @classmethod
    def load(cls, path: Path) -> LearnedRanges:
        """Read a file of learned ranges.

        `write` writes JSON, which is YAML, too: it is read 40 times as fast, and a file has some 10,000 rules.

        Raises
        ------
        OSError : it cannot be read
        ValueError : it has mistakes; all are named
        """
        text = path.read_text()
        try:
            if text.lstrip().startswith("{"):
                content = _LearnedFile.model_validate_json(text)
            else:
                content = _LearnedFile.model_validate(yaml.safe_load(text))
        except ValidationError as error:
            wrong = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ValueError("\n".join([f"{path}: {len(wrong)} wrong entries", *wrong[:20]])) from None
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: is no YAML: {error}") from None
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return cls(content.valid_from, content.learned, content.rules, f"learned {content.valid_from} ({digest})")

    def write(self, path: Path) -> None:
        """Write the file, one rule a line; it appears whole or not at all."""
        rules = ",\n".join(f"  {rule.model_dump_json(exclude_none=True, exclude_defaults=True)}" for rule in self.rules)
        text = (
            f'{{"valid_from": {self.valid_from},\n"learned": {self.provenance.model_dump_json()},\n'
            f'"rules": [\n{rules}\n]}}\n'
        )
        with atomic_path(path) as temporary:
            temporary.write_text(text)

    def find(self, metric: str, selectors: Mapping[str, str]) -> LearnedRule | None:
        """The last rule for this metric and place, or None."""
        rules = self.rules_of(metric, selectors.get("camera", ""))
        return next((rule for rule in reversed(rules) if rule.matches(selectors)), None)

    def rules_of(self, metric: str, camera: str) -> list[LearnedRule]:
        """The rules for this metric that name this camera, behind those that name none."""
        own = self._of.get((metric, camera.lower()), [])
        return [*self._of.get((metric, ""), []), *own] if camera else own


def learned_path(folder: Path, valid_from: int) -> Path:
    """Where the ranges valid from a night on are kept."""
    return folder / f"ranges-{valid_from}.yaml"


def learned_nights(folder: Path) -> list[int]:
    """First nights of the files in `folder`, in order; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.match(path.name)))


def learned_for(folder: Path, night: int) -> LearnedRanges | None:
    """The newest ranges that are valid on `night`, or None.

    A file with mistakes is passed over with an error in the log, so that it costs no camera; every check names the
    version that judged it.
    """
    for first in reversed([n for n in learned_nights(folder) if n <= night]):
        path = learned_path(folder, first)
        try:
            status = path.stat()
        except OSError:
            continue
        found = _load(path, first, status.st_mtime_ns, status.st_size)
        if found is not None:
            return found
    return None


@lru_cache(maxsize=4)
def _load(path: Path, first: int, mtime_ns: int, size: int) -> LearnedRanges | None:
    """One reading, and one complaint, per content of a file."""
    try:
        found = LearnedRanges.load(path)
        if found.valid_from != first:
            raise ValueError(f"{path}: valid_from is {found.valid_from}, but the name says {first}; rename the file")
    except (OSError, ValueError) as error:
        _log.error("learned ranges are passed over: %s", error)
        return None
    return found
