"""Learns the usual range of a metric of one camera and amplifier from what past exposures gave."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.rule import Interval, Learned, LearnedRule, Rule

NORMAL_SIGMA, WARN_SIGMA = 3.0, 5.0
_MAD_EFFICIENCY = 0.37  # of the median absolute deviation against the standard deviation, for Gaussian values
Place = tuple[tuple[str, str], ...]  # selector, value; such as (("camera", "r3"), ("amp", "A"), ...)


@dataclass(frozen=True)
class PastValue:
    """One judged value of a past exposure: metric, the selectors of its place, night and exposure."""

    metric: str
    place: Place
    night: int
    expid: int
    value: float


@dataclass
class Lesson:
    """What was learned.

    Attributes
    ----------
    rules : sorted by metric and place
    nights, exposures : that values came from
    too_few : metric -> places with too few exposures or nights
    outside : sentences about places whose usual value the written range calls ALARM
    """

    rules: list[LearnedRule] = field(default_factory=list)
    nights: tuple[int, ...] = ()
    exposures: int = 0
    too_few: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    outside: list[str] = field(default_factory=list)


@dataclass
class _Past:
    """Of one metric at one place; a season has millions of values, so no more than needed is kept of each."""

    values: array[float] = field(default_factory=lambda: array("d"))
    nights: set[int] = field(default_factory=set)


def learn(values: Iterable[PastValue], ranges: Ranges, minimum: int = 20, min_nights: int = 3) -> Lesson:
    """A range for every metric and place that has enough past values, and whose written rule allows it.

    Parameters
    ----------
    values : of exposures that were as they should be
    ranges : the written ranges
    minimum : exposures that a range needs
    min_nights : different nights that it needs, since values of one night go up and down together
    """
    found: dict[tuple[str, Place], _Past] = defaultdict(_Past)
    nights, exposures = set(), set()
    for past in values:
        if math.isfinite(past.value):
            there = found[past.metric, past.place]
            there.values.append(past.value)
            there.nights.add(past.night)
            nights.add(past.night)
            exposures.add((past.night, past.expid))
    lesson = Lesson(nights=tuple(sorted(nights)), exposures=len(exposures))
    for (metric, place), there in sorted(found.items(), key=lambda item: item[0]):
        camera = dict(place).get("camera", "")
        written = ranges.written(metric, {**dict(place), "arm": camera[:1]})
        if written is None or written.learn is None:
            continue
        if len(there.values) < minimum or len(there.nights) < min_nights:
            lesson.too_few[metric] += 1
            continue
        usual = float(np.median(there.values))
        if written.warn[0] <= usual <= written.warn[1]:
            lesson.rules.append(learn_rule(there.values, written, place))
        else:
            here = " ".join(value for _, value in place)
            lesson.outside.append(
                f"{metric} of {here} is usually {usual:.4g}, but the written range calls everything outside "
                f"{written.warn[0]:g} to {written.warn[1]:g} an ALARM"
            )
    return lesson


def learn_rule(values: Sequence[float], written: Rule, place: Place) -> LearnedRule:
    """Normal within 3, WARNING within 5 robust standard deviations of the median.

    With few exposures the standard deviation itself is uncertain; both factors grow as Student's t does, so that a
    healthy value leaves the normal range as rarely as with many. The normal range reaches at least `written.learn` to
    either side, which forgives metrics that hardly ever change, and is at most as wide as the written one. On a side
    where `written` knows no WARNING (both limits coincide, as for a count that cannot be too small) its limit stays,
    and nothing reaches beyond its warn range.
    """
    past = np.asarray(values, dtype=np.float64)
    center, sigma = float(np.median(past)), robust_sigma(past)
    open_sides = written.normal[0] != written.warn[0], written.normal[1] != written.warn[1]
    half = NORMAL_SIGMA * small_sample_factor(len(past)) * sigma
    widest = (written.normal[1] - written.normal[0]) / (2.0 if all(open_sides) else 1.0)
    half = min(max(half, written.least_reach(center)), widest)

    def interval(reach: float, limits: Interval) -> Interval:
        low, high = np.clip([_rounded(center - reach), _rounded(center + reach)], *written.warn)
        return float(low) if open_sides[0] else limits[0], float(high) if open_sides[1] else limits[1]

    return LearnedRule(
        metric=written.metric,
        where={key: [value] for key, value in place},
        normal=interval(half, written.normal),
        warn=interval(half * WARN_SIGMA / NORMAL_SIGMA, written.warn),
        learned=Learned(n=len(past), median=_rounded(center), sigma=_rounded(sigma)),
    )


def robust_sigma(values: NDArray[np.float64]) -> float:
    """Standard deviation from the median absolute deviation from the median: a Gaussian's, whatever outliers say."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


@lru_cache(maxsize=1024)
def small_sample_factor(n: int) -> float:
    """By how much 3 sigma must grow if sigma comes from `n` values: 1 for many, 1.5 for 20."""
    freedom = max(_MAD_EFFICIENCY * (n - 1), 1.0)
    return float(t.ppf(norm.cdf(NORMAL_SIGMA), freedom) / NORMAL_SIGMA) * math.sqrt(1.0 + 1.0 / n)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
