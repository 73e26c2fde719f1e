"""Plans that add to other plans."""

from __future__ import annotations

import textwrap

import pytest

from qlstream.pipeline.plan import FLAVORS, Plan, PlanError, load_plans
from qlstream.pipeline.planfile import read_plan_file


@pytest.fixture
def write(tmp_path):
    def plan(text: str, name: str = "science.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return plan


def test_a_plan_adds_stages_and_metrics_to_the_shipped_one(write):
    shipped = load_plans()["science"]

    plan = Plan.load(
        write("""
            flavor: science
            extends: quicklook
            add:
              - after: Preproc
                then_check: [qa.bias:Bias_From_Overscan]
              - after: Extract_QP
                steps:
                  - run: algorithms.fiberflat.stage:ApplyFiberFlat_QP
                    then_check: [qa.fibers:CountSpectralBins]
        """)
    )

    names, before = ([step.stage.name for step in p.steps] for p in (plan, shipped))
    at = before.index("Extract_QP") + 1
    assert names == [*before[:at], "ApplyFiberFlat_QP", *before[at:]]
    assert [check.name for check in plan.steps[at].checks] == ["CountSpectralBins"]
    preproc = before.index("Preproc")
    assert plan.checks != shipped.checks
    assert [c.name for c in plan.steps[preproc].checks] == [
        *(c.name for c in shipped.steps[preproc].checks),
        "Bias_From_Overscan",
    ]
    assert len(load_plans()["science"].steps) == len(before)  # the shipped one stays as it is


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_plan_may_be_the_shipped_one(write, flavor):
    assert Plan.load(write(f"flavor: {flavor}\nextends: quicklook\n")).checks == load_plans()[flavor].checks


def test_a_plan_may_extend_one_beside_it(write):
    write(
        "flavor: zero\nextends: quicklook\nadd: [{after: Preproc, then_check: [qa.bias:Bias_From_Overscan]}]", "a.yaml"
    )
    both = write("flavor: zero\nextends: a.yaml\nadd: [{after: Preproc, then_check: [qa.readnoise:Get_RMS]}]", "b.yaml")

    added = read_plan_file(both).steps[1].then_check[-2:]

    assert added == ["qa.bias:Bias_From_Overscan", "qa.readnoise:Get_RMS"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavor: zero", "lists its stages under `steps`, or adds"),
        ("flavor: zero\nextends: quicklook\nsteps: [{run: a:B}]", "lists its stages under `steps`, or adds"),
        ("flavor: zero\nsteps: [{run: a:B}]\nadd: [{after: B}]", "there is none"),
        (
            "flavor: zero\nextends: quicklook\nadd: [{after: Prepoc}]",
            "no stage 'Prepoc' in .*there are Initialize, Pre",
        ),
        ("flavor: zero\nextends: science.yaml", "leads back to this plan"),
        ("flavor: zero\nextends: nowhere.yaml", "nowhere.yaml"),
        ("flavor: zero\nextends: flat.yaml", "is a plan for flat exposures, this one for zero"),
    ],
)
def test_mistakes_are_named(write, tmp_path, text, message):
    (tmp_path / "flat.yaml").write_text("flavor: flat\nextends: quicklook\n")

    with pytest.raises(PlanError, match=message):
        read_plan_file(write(text))
