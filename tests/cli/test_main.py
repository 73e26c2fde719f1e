import subprocess
import sys

import pytest
from click.testing import CliRunner

from qlstream.cli.main import COMMANDS, cli, main
from qlstream.store.database import Store


def run(*args: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, args, env=environment)
    return result.exit_code, result.output


def test_help_comes_without_importing_what_the_commands_need():
    script = (
        "import sys; from qlstream.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'numpy', 'sqlalchemy', 'numba'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_explains_itself(name):
    status, out = run(name, "--help")

    assert status == 0
    assert "Usage:" in out


@pytest.mark.parametrize("command", ["run", "replay"])
def test_commands_have_the_promised_options(command):
    _, out = run(command, "--help")

    for option in ("--raw", "--calib", "--redux", "--store", "--port", "--no-dashboard", "--once", "--workers"):
        assert option in out


def test_an_unknown_command_is_answered_with_those_that_exist():
    status, out = run("reduse")

    assert status == 2
    assert "no command 'reduse'; there are demo, run" in out


@pytest.mark.parametrize("night", ["20261341", "2026011", "yesterday"])
def test_a_night_that_is_no_date_is_refused(night):
    status, out = run("replay", night, "--raw", "raw", "--redux", "redux")

    assert status == 2
    assert f"Badly formatted night '{night}'" in out


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan"])
def test_a_speed_that_is_none_is_refused(speed):
    status, out = run("replay", "20260115", "--speed", speed)

    assert status == 2
    assert "expected a number above 0, or max" in out


def test_wrong_settings_are_all_named_at_once_without_a_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["run", "--raw", "x", "--redux", str(tmp_path), "--workers", "0", "--port", "70000"])

    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "2 wrong settings" in told
    assert "engine.workers" in told
    assert "dashboard.port" in told
    assert "Traceback" not in told


def test_a_missing_folder_is_told_with_the_ways_to_give_it(capsys, monkeypatch):
    for name in ("DESI_SPECTRO_DATA", "DESI_SPECTRO_REDUX", "QLSTREAM_RAW", "QLSTREAM_REDUX"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SystemExit) as end:
        main(["run"])

    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "--raw" in told
    assert "--redux" in told


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no night 20260115"):
        main(
            ["--debug", "replay", "20260115", "--raw", str(tmp_path), "--redux", str(tmp_path / "r"), "--no-dashboard"]
        )


def test_a_plan_with_mistakes_stops_the_start_with_all_of_them(tmp_path, capsys):
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "zero.yaml").write_text("flavor: zero\nsteps: [{run: 'no.such:Stage'}]\n")
    config = tmp_path / "site.yaml"
    config.write_text(f"engine: {{plans: {plans}}}\n")
    redux = tmp_path / "redux"

    with pytest.raises(SystemExit) as end:
        main(["run", "--raw", str(tmp_path), "--redux", str(redux), "--config", str(config), "--no-dashboard"])

    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "no.such:Stage" in told
    assert "no plan for dark exposures" in told
    assert not redux.exists()  # nothing was started


def test_status_and_dashboard_say_where_no_night_is_stored(tmp_path):
    for command in ("status", "dashboard"):
        status, out = run(command, "--redux", str(tmp_path))

        assert status == 1
        assert "no night is stored in" in out

    Store.open(None, tmp_path).close()
    status, out = run("status", "--redux", str(tmp_path))
    assert status == 1
    assert "no night yet" in out


def test_config_show_tells_value_source_and_bounds(tmp_path):
    config = tmp_path / "site.yaml"
    config.write_text("engine: {workers: 7}\n")

    status, out = run("config", "show", "--config", str(config))

    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("engine.workers"))
    assert "7" in line
    assert "site.yaml" in line
    assert ">= 1" in line
