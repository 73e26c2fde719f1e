from click.testing import CliRunner

from qlstream.cli.main import cli
from qlstream.engine.lock import sole_service


def doctor(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["doctor", "--port", "0", *args])
    return result.exit_code, result.output


def test_doctor_finds_a_sound_machine_sound(tmp_path):
    status, out = doctor("--redux", str(tmp_path))

    assert status == 0
    assert "plans for zero, dark, arc, flat, science exposures are sound" in out
    assert "no service works on it" in out


def test_doctor_says_what_is_wrong_and_what_to_do(tmp_path):
    (tmp_path / "calib").mkdir()

    status, out = doctor("--calib", str(tmp_path / "calib"), "--raw", str(tmp_path / "nowhere"))

    assert status == 1
    assert "holds no spec/**/*.yaml" in out
    assert "→ give the folder that DESI_SPECTRO_CALIB names" in out
    assert "is not there yet" in out


def test_doctor_finds_a_running_service(tmp_path):
    with sole_service(tmp_path):
        _, out = doctor("--redux", str(tmp_path))

    assert "is being worked on by process" in out
