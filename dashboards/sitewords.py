"""A site's own words for the metrics it adds, from YAML; they may also replace ours."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator

from dashboards.glossary import GROUPS, Entry


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, description="a few words, to be followed by a camera")
    what: str = Field(description="what it measures")
    act: str = Field("", description="what to do when it is out of range")
    group: str = Field(GROUPS[-1], description="where it stands on the page")

    @field_validator("group")
    @classmethod
    def _is_a_group(cls, group: str) -> str:
        if group not in GROUPS:
            raise ValueError(f"there are {', '.join(GROUPS)}")
        return group


class _File(RootModel[dict[str, _Words]]):
    """Result key -> its words."""


def read_words(path: Path) -> dict[str, Entry]:
    """The entries of a YAML file, or of all `*.yaml` of a folder: result key -> title, what, act, group.

    Raises
    ------
    ValueError : no file, or files with mistakes; all are named
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    entries: dict[str, Entry] = {}
    wrong = [] if files else [f"{path}: no *.yaml in this folder"]
    for file in files:
        try:
            content = _File.model_validate(yaml.safe_load(file.read_text()) or {})
        except ValidationError as error:
            wrong += [f"{file}: {'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            wrong.append(f"{file}: cannot be read: {' '.join(str(error).split())}")
        else:
            entries |= {metric: Entry(**words.model_dump()) for metric, words in content.root.items()}
    if wrong:
        raise ValueError("\n".join(wrong))
    return entries
