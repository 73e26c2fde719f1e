"""The demonstration's own care: what it empties, and when it opens a browser."""

import pytest
from click.testing import CliRunner

from qlstream.cli import demo as module


def test_a_folder_with_foreign_files_is_not_emptied(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "night").mkdir()

    result = CliRunner().invoke(module.demo, ["--folder", str(tmp_path), "--once"])

    assert result.exit_code != 0
    assert "holds thesis.tex; give an empty or new --folder" in result.output
    assert (tmp_path / "night").is_dir()


@pytest.mark.parametrize(("display", "has_screen"), [("", False), (":0", True)])
def test_no_browser_is_opened_without_a_screen(monkeypatch, display, has_screen):
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    assert module._has_screen() is has_screen
