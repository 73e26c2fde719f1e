import numpy as np
import pytest

from qa.bias import Bias_From_Overscan


@pytest.fixture
def judge(make_context, image_of):
    def run(**amps):
        return Bias_From_Overscan().run(image_of(amps=amps), make_context())

    return run


def alarms(result):
    return {(c.metric, c.element) for c in result.checks if c.severity == 30}


def test_only_a_dead_amplifiers_bias_alarms(judge):
    result = judge(C={"overscan": 0.0})

    assert alarms(result) == {("BIAS_AMP", "C")}
    assert result.per_amp["BIAS_AMP"] == {"A": 1970.0, "B": 1970.0, "C": 0.0, "D": 1970.0}


def test_a_slow_drift_is_seen_where_no_step_is(judge):
    rows = np.linspace(-15, 15, 100, dtype=np.float32) + np.random.default_rng(1).normal(0, 0.4, 100).astype("f4")

    result = judge(B={"overscan_rows": rows})

    assert alarms(result) == {("BIAS_DRIFT_AMP", "B")}
    # between the middles of the first and the last of 16 blocks
    assert result.per_amp["BIAS_DRIFT_AMP"]["B"] == pytest.approx(30 * 15 / 16, abs=5 * 0.4 * np.sqrt(2 * 1.57 / 6))
    np.testing.assert_array_equal(result.vectors["OVERSCAN_ROWS_B"], rows)


def test_an_amplifier_without_levels_is_unknown(judge):
    result = judge(A={"overscan": np.nan, "ostep": np.nan, "overscan_rows": np.full(100, np.nan, np.float32)})

    assert {(c.metric, c.severity.name) for c in result.checks if c.element == "A"} == {
        ("BIAS_AMP", "UNKNOWN"), ("BIAS_STEP_AMP", "UNKNOWN"), ("BIAS_DRIFT_AMP", "UNKNOWN"),
    }  # fmt: skip
    assert alarms(result) == set()
