"""One reference range and where it holds: written by hand, or learned from past exposures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, StringConstraints, model_validator

Interval = tuple[float, float]
Percent = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)? *%$")]


class Rule(BaseModel):
    """One range and where it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    metric: str = Field(description="result key, e.g. NOISE_AMP")
    where: dict[str, list[str]] = Field(
        default_factory=dict,
        description="selector (instrument, camera, arm, flavor, program, amp, class) -> accepted values",
    )
    normal: Interval = Field(description="NORMAL inside, both ends included")
    warn: Interval = Field(description="WARNING inside and not normal; ALARM outside")
    why: str = Field(default="", description="what a value outside tells, as half a sentence")
    learn: NonNegativeFloat | Percent | None = Field(
        default=None,
        description="each camera may learn its own range from past exposures, its normal interval reaching at least so "
        'far, or so many percent ("5 %"), on either side of their median; unset is never',
    )

    @model_validator(mode="after")
    def _nested(self) -> Rule:
        if not (self.warn[0] <= self.normal[0] <= self.normal[1] <= self.warn[1]):
            raise ValueError(
                f"{self.metric}: the normal range {self.normal} must lie inside the warn range {self.warn}"
            )
        return self

    def least_reach(self, median: float) -> float:
        """How far a learned normal range reaches at least beyond `median`."""
        if isinstance(self.learn, str):
            return abs(median) * float(self.learn.rstrip(" %")) / 100.0
        return self.learn or 0.0

    def matches(self, selectors: Mapping[str, str]) -> bool:
        return all(selectors.get(key, "").lower() in (v.lower() for v in ok) for key, ok in self.where.items())


class Learned(BaseModel):
    """What a learned range stands on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(gt=0, description="exposures")
    median: float
    sigma: float = Field(ge=0, description="robust standard deviation of one exposure")


class LearnedRule(Rule):
    """A range from past exposures. The hand-written rule of the same place stays around it, see `within`."""

    learned: Learned

    def within(self, outer: Rule) -> Rule:
        """This range as far as `outer` allows: what `outer` calls ALARM stays ALARM.

        Both intervals are cut at the warn range of `outer`. If `outer` may not be learned, or if none of this normal
        range would be left, `outer` itself.
        """
        low, high = outer.warn
        if outer.learn is None or self.normal[1] < low or self.normal[0] > high:
            return outer
        usual = f"usual here {self.learned.median:.4g}, {self.learned.n} exposures"
        return LearnedRule(
            metric=self.metric,
            where=self.where,
            normal=(max(self.normal[0], low), min(self.normal[1], high)),
            warn=(max(self.warn[0], low), min(self.warn[1], high)),
            why=f"{outer.why} ({usual})" if outer.why else usual,
            learned=self.learned,
        )
