"""Logs carry the exposure and camera that they belong to."""

import json
import logging

import pytest

from qlstream.logging import exposure_log, get_log, stage_log, start_logging


@pytest.fixture(autouse=True)
def _logging_as_before():
    root, own = logging.getLogger(), logging.getLogger("qlstream")
    handlers, levels = root.handlers[:], (root.level, own.level)
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def test_a_line_is_tagged_on_the_terminal_and_in_the_file(tmp_path, capsys):
    start_logging("INFO", tmp_path / "logs" / "night.jsonl")

    exposure_log(82, "r3").warning("no %s", "PSF")
    get_log("ingest").info("watching")
    logging.getLogger("qlstream.engine.pool").debug("not asked for")
    logging.getLogger("tornado").info("not ours")

    text = capsys.readouterr().err.splitlines()
    assert len(text) == 2
    assert text[0].endswith("Z WARNING camera 00000082 r3: no PSF")
    assert text[1].endswith("Z INFO ingest: watching")
    lines = [json.loads(line) for line in (tmp_path / "logs" / "night.jsonl").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["no PSF", "watching"]
    assert (lines[0]["expid"], lines[0]["camera"], lines[0]["level"]) == (82, "r3", "WARNING")
    assert "expid" not in lines[1]


def test_an_exception_brings_its_traceback(tmp_path, capsys):
    start_logging("INFO", tmp_path / "night.jsonl")

    try:
        raise ValueError("the reason")
    except ValueError:
        exposure_log(82, "r3").exception("failed")

    assert "ValueError: the reason" in capsys.readouterr().err
    assert "ValueError: the reason" in json.loads((tmp_path / "night.jsonl").read_text())["traceback"]


def test_starting_again_does_not_double_the_lines(capsys):
    start_logging()
    start_logging()

    get_log("test").info("once")

    assert capsys.readouterr().err.count("once") == 1


def test_lines_from_within_a_stage_tell_which(tmp_path, capsys):
    start_logging("INFO", tmp_path / "night.jsonl")

    with stage_log("Flexure"):
        exposure_log(82, "r3").warning("few lines")
    exposure_log(82, "r3").warning("after it")

    assert "camera 00000082 r3 Flexure: few lines" in capsys.readouterr().err
    inside, after = (json.loads(line) for line in (tmp_path / "night.jsonl").read_text().splitlines())
    assert inside["stage"] == "Flexure"
    assert "stage" not in after
