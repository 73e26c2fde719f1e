import textwrap

import pytest
from pydantic import Field

from qlstream.datamodel.image import Image, RawCamera
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg, StageParams
from qlstream.pipeline.plan import FLAVORS, Plan, PlanError, load_plans, resolve
from qlstream.pipeline.result import QAResult

HERE = __name__


class Reads(PipelineAlg[RawCamera, Image]):
    class Params(StageParams):
        width: float = Field(3.5, gt=0, le=10, alias="FullWidth", description="half width [pixel]")

    def run(self, data, context):
        return data


class Extracts(PipelineAlg[Image, QFrame]):
    needs = ("Reads",)

    def run(self, data, context):
        return data


class StandsAside(PipelineAlg[Image, str]):
    needs = (("Nothing", "Reads"),)
    aside = True

    def run(self, data, context):
        return ""


class Judges(MonitoringAlg[QFrame]):
    def run(self, data, context):
        return QAResult(self.name)


class Undeclared(PipelineAlg):
    def run(self, data, context):
        return data


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stages_of_a_site", __import__("sys").modules[HERE])

    def write(text):
        path = tmp_path / "science.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_plan_builds_its_stages_with_their_parameters(plan_file):
    plan = Plan.load(
        plan_file("""
        flavor: science
        steps:
          - run: stages_of_a_site:Reads
            params: {FullWidth: 2.5}
          - run: stages_of_a_site:Extracts
            write: [qframe]
            then_check: [stages_of_a_site:Judges]
        """)
    )

    assert [s.stage.name for s in plan.steps] == ["Reads", "Extracts"]
    assert plan.steps[0].stage.params.width == 2.5
    assert plan.steps[1].checks[0].name == "Judges"
    assert plan.steps[1].write == ("qframe",)


def test_every_mistake_of_a_plan_is_named_at_once(plan_file):
    path = plan_file("""
        flavor: sience
        steps:
          - run: stages_of_a_site:Reads
            params: {width: -1, colour: red}
          - run: stages_of_a_site:Nowhere
          - run: no_such_package.module:Stage
          - run: stages_of_a_site:Judges
          - run: stages_of_a_site:Undeclared
        """)

    with pytest.raises(PlanError) as error:
        Plan.load(path)

    text = str(error.value)
    for expected in (
        "flavor: 'sience' is none of",
        "steps.0.params.width: Input should be greater than 0",
        "steps.0.params.colour: Extra inputs",
        "steps.1.run: stages_of_a_site:Nowhere",
        "steps.2.run: no_such_package.module:Stage",
        "steps.3.run: stages_of_a_site:Judges is no PipelineAlg",
        "Undeclared does not declare its types",
    ):
        assert expected in text, f"{expected!r} not in\n{text}"
    assert str(path) in text


def test_a_stage_that_does_not_fit_the_one_before_is_refused(plan_file):
    path = plan_file("""
        flavor: science
        steps:
          - run: stages_of_a_site:Extracts
            then_check: [stages_of_a_site:Reads]
        """)

    with pytest.raises(PlanError) as error:
        Plan.load(path)

    assert "steps.0.run: Extracts takes Image, but gets RawCamera" in str(error.value)
    assert "steps.0.run: Extracts needs Reads before it" in str(error.value)
    assert "steps.0.then_check.0.run: stages_of_a_site:Reads is no MonitoringAlg" in str(error.value)


def test_a_metric_on_the_wrong_type_is_refused(plan_file):
    path = plan_file("""
        flavor: science
        steps:
          - run: stages_of_a_site:Reads
            then_check: [stages_of_a_site:Judges]
        """)

    with pytest.raises(PlanError, match="Judges judges QFrame, but Reads gives Image"):
        Plan.load(path)


def test_a_stage_that_stands_aside_leaves_the_chain_as_it_is(plan_file):
    text = """
        flavor: science
        steps:
          - run: stages_of_a_site:Reads
          - run: stages_of_a_site:StandsAside
            then_check: [stages_of_a_site:Judges]
          - run: stages_of_a_site:Extracts
        """

    with pytest.raises(PlanError) as error:
        Plan.load(plan_file(text))

    assert str(error.value).splitlines()[1:] == [
        "  steps.1.then_check.0: Judges judges QFrame, but StandsAside gives str"
    ]


def test_any_of_several_needed_stages_will_do_but_one_must_be_there(plan_file):
    path = plan_file("""
        flavor: science
        steps:
          - run: stages_of_a_site:StandsAside
        """)

    with pytest.raises(PlanError, match="StandsAside needs Nothing or Reads before it"):
        Plan.load(path)


def test_default_config_lists_name_default_and_comment():
    assert Reads.get_default_config() == (("width", 3.5, "half width [pixel]"),)


def test_a_reference_without_a_colon_is_refused():
    with pytest.raises(ValueError, match="package.module:Name"):
        resolve("algorithms.extract.boxcar.Extract_QP")


def test_every_shipped_plan_loads():
    plans = load_plans()

    assert tuple(plans) == FLAVORS
    for plan in plans.values():
        for step in plan.steps:
            for algorithm in (step.stage, *step.checks):
                described = [comment for _, _, comment in algorithm.get_default_config()]
                assert all(described), f"{algorithm.name} has a parameter without a description"
