"""The example of a site that adds a stage and a metric by YAML alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dashboards import glossary
from dashboards.glossary import add_words
from dashboards.queries import read_details, read_exposures
from dashboards.render import render
from dashboards.sitewords import read_words
from dashboards.strips import strips_of
from qlstream.datamodel.masks import CCDMask
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import PlanError, load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QASeverity
from qlstream.settings import load_settings
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import plan_night
from qlstream.simulate.seeds import generator
from qlstream.simulate.skylight import draw_sky
from qlstream.simulate.throughput import build_throughput
from qlstream.store.database import Store

SITE = Path(__file__).parents[2] / "examples" / "own_stage"
NIGHT, CAMERA, KINDS, SCIENCE = 20260115, "r0", ("flat", "science-dark"), 2
MINI = load_instrument("mini")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("night")
    simulate_night(MINI, NIGHT, out, (CAMERA,), kinds=KINDS)
    return out


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch):
    """The site's settings, in its folder and with its package on the path."""
    monkeypatch.chdir(SITE)
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.setattr(glossary, "_of_the_site", {})
    return load_settings(Path("site.yaml"), environ={})


@pytest.fixture
def reduced(site, night: Path, tmp_path: Path) -> Reduced:
    plans, ranges = load_plans(site.engine.plans), Ranges.load(site.engine.ranges)
    raw = night / "raw" / str(NIGHT) / f"{SCIENCE:08d}" / f"desi-{SCIENCE:08d}.fits.fz"
    request = CameraRequest(raw, CAMERA, tmp_path / "redux", night / "calib", products=False)
    return reduce_camera(request, plans, ranges, _Silent(), Buffers())


class _Silent:
    def __getattr__(self, name: str):
        return lambda *_: None


def test_the_site_has_its_stage_and_its_metric_in_the_plan_and_all_else_as_shipped(site):
    plans, shipped = load_plans(site.engine.plans), load_plans()

    own = [c for c in plans["science"].checks if c not in shipped["science"].checks]
    assert own == [("ApplyFiberFlat_QP", "Sky_Line_Ratio")]
    names = [step.stage.name for step in plans["science"].steps]
    assert names[names.index("Preproc") + 1] == "MaskGhosts"
    assert [n for n in names if n != "MaskGhosts"] == [step.stage.name for step in shipped["science"].steps]
    for flavor in ("zero", "dark", "arc", "flat"):
        assert plans[flavor].checks == shipped[flavor].checks


def test_a_site_without_its_package_is_told_so(site, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(SITE)])
    for name in [n for n in sys.modules if n.partition(".")[0] == "niebla"]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(PlanError, match="niebla.ghosts:MaskGhosts: No module named 'niebla'"):
        load_plans(site.engine.plans)


def test_the_ratio_of_the_lines_is_that_of_the_sky(reduced):
    result = next(r for _, r in reduced.outcome.judged if r.name == "Sky_Line_Ratio")
    ratio, error = result.metrics["SKYLINE_RATIO"], result.metrics["SKYLINE_RATIO_ERROR"]

    exposure = plan_night(NIGHT, 1, KINDS)[SCIENCE - 1]
    wave, flux = draw_sky(generator(1, NIGHT, SCIENCE, "sky"), exposure.moonlight).lines()
    electrons = build_throughput(MINI, CAMERA, 1).electrons(wave) * flux
    expected = np.divide(*(electrons[np.abs(wave - line) < 2.0].sum() for line in (6302.05, 6365.54)))
    # beside the noise: OH lines of a few percent of the fainter line lie in its windows of 5 Angstrom a row
    assert abs(ratio - expected) < 4 * error + 0.05 * expected
    assert [check.severity for check in result.checks] == [QASeverity.NORMAL]
    assert np.isfinite(result.per_fiber["SKYLINE_FIBER"]).sum() >= 3


def test_a_ghost_is_masked_where_its_source_is_bright(site, reduced):
    from niebla.ghosts import MaskGhosts

    image, context = reduced.outcome.outputs["Preproc"], reduced.context
    before = image.mask.copy()
    box, source = (100, 110, 200, 220), (300, 320, 200, 220)
    light = image.pix[300:320, 200:220][image.mask[300:320, 200:220] == 0].sum()

    def masked(above: float, camera: str = CAMERA):
        ghosts = {camera: [{"box": box, "source": source, "above": above}]}
        return MaskGhosts({"ghosts": ghosts}).run(image, context)

    bright, faint, elsewhere = masked(0.9 * light), masked(1.1 * light), masked(0.0, "r1")
    assert (bright.mask[100:110, 200:220] & int(CCDMask.BAD)).all()
    assert bright.meta["NGHOST"] == 200
    for other in (faint, elsewhere):
        np.testing.assert_array_equal(other.mask, before)
    np.testing.assert_array_equal(image.mask, before)
    with pytest.raises(ValueError, match="leaves the image"):
        MaskGhosts({"ghosts": {CAMERA: [{"box": (0, 9000, 0, 5), "source": source, "above": 0}]}}).run(image, context)


def test_the_service_judges_it_and_the_page_shows_it_in_the_sites_words(site, night, tmp_path):
    redux = tmp_path / "redux"
    folders = ("--raw", night / "raw", "--calib", night / "calib", "--redux", redux)
    command = [sys.executable, "-m", "qlstream.cli.main", "run", "--config", "site.yaml", *map(str, folders)]
    quick = {"QLSTREAM_INGEST_SETTLE_S": "0.2", "QLSTREAM_LOGGING_LEVEL": "WARNING", "PYTHONPATH": str(SITE)}

    done = subprocess.run(
        [*command, "--once", "--no-dashboard", "--workers", "1"],
        env=os.environ | quick, cwd=SITE, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    add_words(read_words(site.dashboard.glossary))
    with Store.open(None, redux) as store:
        details = read_details(store, NIGHT, SCIENCE)
        exposure = read_exposures(store, NIGHT)[SCIENCE]
    (strip,) = (s for s in strips_of(details, [CAMERA])["Sky and depth"] if s.metric == "SKYLINE_RATIO")
    assert strip.status.name == "NORMAL"
    assert strip.ranges == "3.2 to 4.8"
    page = render("metrics", groups=strips_of(details, [CAMERA], single=True), e=exposure, camera=CAMERA)
    assert "ratio of two sky lines" in page
    assert "Nature fixes it" in page
    assert "Outside its range the flat, the wavelengths or a gain is wrong" in page
