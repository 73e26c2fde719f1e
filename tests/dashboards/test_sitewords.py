"""Words for metrics that we do not know."""

from __future__ import annotations

import pytest

from dashboards import glossary
from dashboards.glossary import add_words, explain
from dashboards.sitewords import read_words

WORDS = """
GHOST_LEVEL:
  title: light in the ghost
  what: Counts in the ghost's box.
  act: Look at the moon.
  group: Optics
NOISE_AMP: {title: hiss, what: Our word for read noise.}
"""


@pytest.fixture(autouse=True)
def _words_of_this_test_alone(monkeypatch):
    monkeypatch.setattr(glossary, "_of_the_site", {})


def test_a_site_has_its_own_words(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(WORDS)

    add_words(read_words(path))

    assert explain("GHOST_LEVEL", "Ghost").title == "light in the ghost"
    assert explain("GHOST_LEVEL").group == "Optics"
    assert explain("GHOST_LEVEL").act == "Look at the moon."
    assert explain("NOISE_AMP").title == "hiss"
    assert explain("NOISE_AMP").group == "Other"
    assert explain("BIAS_AMP").title == "bias level"


def test_a_folder_of_files_is_read_too(tmp_path):
    (tmp_path / "a.yaml").write_text(WORDS)
    (tmp_path / "b.yaml").write_text("DRIFT: {title: drift, what: Of the slit.}")

    assert list(read_words(tmp_path)) == ["GHOST_LEVEL", "NOISE_AMP", "DRIFT"]


def test_every_mistake_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("X: {title: '', what: y}\nY: {title: t, what: w, group: Weather}\nZ: {title: t}")
    (tmp_path / "b.yaml").write_text("[")
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(ValueError, match="cannot be read") as caught:
        read_words(tmp_path)

    for key in ("X.title", "Y.group", "there are File, CCD", "Z.what"):
        assert key in str(caught.value)
    with pytest.raises(ValueError, match="no \\*.yaml"):
        read_words(empty)


def test_a_metric_without_words_is_called_by_its_key():
    assert explain("SLIT_DRIFT", "Slit").title == "slit drift"
    assert explain("SLIT_DRIFT_AMP").title == "slit drift by amplifier"
    assert explain("SLIT_DRIFT").group == "Other"
    assert explain("SLIT_DRIFT", "Calc_XWSigma").group == "Optics"
