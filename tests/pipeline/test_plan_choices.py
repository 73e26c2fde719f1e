"""What a user may change of a plan for one run: products, parameters, a single metric."""

import sys

import pytest
from pydantic import Field

from qlstream.datamodel.image import Image, RawCamera
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg, StageParams
from qlstream.pipeline.plan import Plan, PlanError, load_plans, require_products
from qlstream.pipeline.result import QAResult


class Reads(PipelineAlg[RawCamera, Image]):
    def run(self, data, context):
        return data


class Extracts(PipelineAlg[Image, QFrame]):
    class Params(StageParams):
        width: float = Field(3.5, gt=0, alias="FullWidth", description="half width [pixel]")
        use_sigma: bool = Field(False, alias="usesigma", description="of the traces")

    def run(self, data, context):
        return data


class Flattens(PipelineAlg[QFrame, QFrame]):
    def run(self, data, context):
        return data


class OfImage(MonitoringAlg[Image]):
    def run(self, data, context):
        return QAResult(self.name)


class OfSpectra(MonitoringAlg[QFrame]):
    def run(self, data, context):
        return QAResult(self.name)


class Foreign(MonitoringAlg[QFrame]):
    def run(self, data, context):
        return QAResult(self.name)


class OfNothing(MonitoringAlg[int]):
    def run(self, data, context):
        return QAResult(self.name)


PLAN = """
flavor: science
Period: 2.0
slow_s: 30
steps:
  - run: site_choices:Reads
    write_on_request: [preproc]
    then_check: [site_choices:OfImage]
  - run: site_choices:Extracts
    write: [qframe]
    then_check: [site_choices:OfSpectra]
  - run: site_choices:Flattens
    write_on_request: [qfframe]
    then_check: [site_choices:OfSpectra]
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "site_choices", sys.modules[__name__])

    def load(text):
        (tmp_path / "science.yaml").write_text(text)
        return Plan.load(tmp_path / "science.yaml")

    return load


def test_signs_of_life_are_set_in_the_plan_also_by_the_names_of_the_seed(load):
    plan = load(PLAN)

    assert (plan.heartbeat_s, plan.slow_s) == (2.0, 30.0)


def test_dump_writes_what_else_is_written_on_request(load):
    plan = load(PLAN.replace("write_on_request: [preproc]", "write_on_request: [preproc]\n    dump: true"))

    assert [step.write for step in plan.steps] == [("preproc",), ("qframe",), ()]
    assert plan.products == ("preproc", "qframe", "qfframe")


def test_a_product_that_a_stage_cannot_give_is_refused_when_the_plan_is_loaded(load):
    with pytest.raises(PlanError) as error:
        load(PLAN.replace("[qframe]", "[preproc, spectrum]").replace("[qfframe]", "[fframe]"))

    text = str(error.value)
    assert "steps.1.write: Extracts gives QFrame, which makes no preproc" in text
    assert "steps.1.write: no product 'spectrum'; there are preproc, psf" in text
    assert "steps.2.write_on_request: Flattens gives QFrame, which makes no fframe" in text


def test_unknown_products_are_all_named_at_once(load):
    plan = load(PLAN)

    require_products([plan], ["preproc", "qframe"])
    with pytest.raises(PlanError) as error:
        require_products([plan], ["preproc", "cframe", "nonsense"])

    assert str(error.value).splitlines() == [
        "2 products cannot be written from science exposures",
        "  cframe: no stage here gives it",
        "  nonsense: no such product",
        "there are preproc, qframe, qfframe",
    ]


def test_every_output_of_a_shipped_quicklook_plan_can_be_written():
    for plan in load_plans().values():
        for step in plan.steps[1:]:  # the first one only completes the header
            assert step.write or step.write_on_request, f"{plan.path}: {step.stage.name} can write nothing"


def test_parameters_are_changed_by_name_or_seed_name_in_every_stage_that_has_them(load):
    plan = load(PLAN)

    changed = plan.with_params(usesigma=True, width=2.0)

    assert changed.steps[1].stage.params.use_sigma
    assert changed.steps[1].stage.params.width == 2.0
    assert plan.steps[1].stage.params.width == 3.5
    with pytest.raises(PlanError) as error:
        plan.with_params(FullWidth=-1, nothing=3)
    assert "Extracts: width: Input should be greater than 0, got -1" in str(error.value)
    assert "nothing: no stage of this plan has such a parameter" in str(error.value)


def test_a_single_metric_needs_only_the_stages_before_it(load):
    plan = load(PLAN).only("ofimage")

    assert [step.stage.name for step in plan.steps] == ["Reads"]
    assert plan.checks == (("Reads", "OfImage"),)


def test_a_metric_on_several_stages_must_be_told_with_its_stage(load):
    plan = load(PLAN)

    assert plan.only("OfSpectra@Extracts").checks == (("Extracts", "OfSpectra"),)
    assert plan.only("OfSpectra@Flattens").checks == (("Flattens", "OfSpectra"),)
    with pytest.raises(PlanError, match="say which: OfSpectra@Extracts or OfSpectra@Flattens"):
        plan.only("OfSpectra")
    with pytest.raises(PlanError, match="no stage 'Nowhere'"):
        plan.only("OfSpectra@Nowhere")


def test_a_metric_of_no_plan_hangs_off_a_stage_that_gives_what_it_judges(load):
    plan = load(PLAN)

    assert plan.only("site_choices:Foreign@Flattens").checks == (("Flattens", "Foreign"),)
    assert plan.only("site_choices:OfImage").checks == (("Reads", "OfImage"),)
    with pytest.raises(PlanError, match="say which stage's: site_choices:Foreign@Extracts, site_choices:Foreign@Flat"):
        plan.only("site_choices:Foreign")
    with pytest.raises(PlanError, match="Foreign judges QFrame; say which stage's"):
        plan.only("site_choices:Foreign@Reads")
    with pytest.raises(PlanError, match="no stage of .* gives one"):
        plan.only("site_choices:OfNothing")
    with pytest.raises(PlanError, match="site_choices:Reads is no MonitoringAlg"):
        plan.only("site_choices:Reads")


def test_an_unknown_metric_is_answered_with_those_of_the_plan(load):
    with pytest.raises(PlanError) as error:
        load(PLAN).only("Get_RMS")

    assert "no metric 'Get_RMS'" in str(error.value)
    assert "OfImage@Reads, OfSpectra@Extracts, OfSpectra@Flattens" in str(error.value)


def test_a_configuration_of_quicklook_is_told_from_a_plan(load):
    with pytest.raises(PlanError, match="a QuickLook configuration with Pipeline and Algorithms; a plan lists"):
        load("name: Arcs\nFlavor: arcs\nPeriod: 5.0\nPipeline: [Initialize]\nAlgorithms: {Initialize: {}}\n")


def test_a_plan_that_cannot_be_read_is_a_plan_error(tmp_path):
    with pytest.raises(PlanError, match="nowhere.yaml"):
        Plan.load(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("steps: [")
    with pytest.raises(PlanError, match="broken.yaml: 1 wrong"):
        Plan.load(tmp_path / "broken.yaml")
