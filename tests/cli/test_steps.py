"""Every step of the offline reduction as a command: what it says of itself, and of files that it cannot use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from click.testing import CliRunner

from qlstream.cli.main import STEPS, cli
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.frame import Frame
from qlstream.io.fiberflat import read_fiberflat, write_fiberflat
from qlstream.io.frame import write_frame
from qlstream.pipeline.filestep import FileStep, Port
from qlstream.production.plan import step_class

CLASSES = {name: step_class(reference) for name, (reference, _) in STEPS.items()}
INPUTS = [(name, port) for name, step in CLASSES.items() for port in step.inputs]

# product -> name of its first HDU, and its unit
FIRST = {
    "preproc": ("IMAGE", "electron"), "psf": ("XTRACE", ""), "frame": ("FLUX", "electron/Angstrom"),
    "cframe": ("FLUX", "10**-17 erg/(s cm2 Angstrom)"), "fiberflat": ("FIBERFLAT", ""),
    "sky": ("SKY", "electron/Angstrom"), "stdstars": ("FLUX", "10**-17 erg/(s cm2 Angstrom)"),
    "fluxcalib": ("FLUXCALIB", ""), "": ("ELSE", ""),
}  # fmt: skip


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def product(path: Path, holds: str, camera: str = "r0", expid: int = 5, flavor: str = "science") -> Path:
    """A file whose headers say what it is, without content."""
    name, bunit = FIRST[holds]
    cards: dict[str, Any] = {"BUNIT": bunit, "EXPID": expid, "OBSTYPE": flavor.upper()}
    if holds != "stdstars":
        cards["CAMERA"] = camera
    fitsio.write(str(path), np.zeros((2, 3), "f4"), header=cards, extname=name, clobber=True)
    return path


def fitting(step: type[FileStep], folder: Path, camera: str = "r0") -> dict[str, Path]:
    """Port -> a file that fits it, of one camera and exposure."""
    return {
        port.name: product(folder / f"{port.name}.fits", port.holds, camera, flavor=port.flavor or "science")
        for port in step.inputs
    }


def line(name: str, files: dict[str, Path], out: Path) -> list[object]:
    """The command with all its inputs and its first output."""
    given: list[object] = [name]
    for port, path in files.items():
        given += [f"--{port.replace('_', '-')}", path]
    return [*given, "-o", out]


@pytest.mark.parametrize("name", STEPS)
def test_help_tells_what_it_does_and_every_option(name: str) -> None:
    status, out = run(name, "--help")

    step = CLASSES[name]
    assert status == 0
    assert step.title.split()[0] in out
    assert all(f"--{port.option}" in out and port.help for port in step.inputs)
    assert all(info.description for info in step.Params.model_fields.values())
    assert "replaced" in out


@pytest.mark.parametrize(("name", "port"), INPUTS)
def test_a_file_that_is_not_there_is_named(name: str, port: Port, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path) | {port.name: tmp_path / "nowhere.fits"}

    status, out = run(*line(name, files, tmp_path / "out.fits"))

    assert status == 2
    assert f"--{port.option}" in out
    assert "nowhere.fits" in out


@pytest.mark.parametrize(("name", "port"), [(name, port) for name, port in INPUTS if not port.optional])
def test_a_file_that_is_no_fits_file_is_named(name: str, port: Port, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path)
    files[port.name].write_text("not this one")

    status, out = run(*line(name, files, tmp_path / "out.fits"))

    assert status == 1
    assert files[port.name].name in out.replace("\n", "")
    assert "Traceback" not in out


@pytest.mark.parametrize(("name", "port"), [(name, port) for name, port in INPUTS if port.holds])
def test_another_product_is_refused(name: str, port: Port, tmp_path: Path) -> None:
    for other in FIRST:
        if other and other != port.holds:
            files = fitting(CLASSES[name], tmp_path)
            product(files[port.name], other)

            status, out = run(*line(name, files, tmp_path / "out.fits"))

            assert status == 1
            assert f"is a {other}; expected a {port.holds}" in out.replace("\n", " ")
            assert not (tmp_path / "out.fits").exists()


@pytest.mark.parametrize(
    ("name", "port"),
    [(name, port) for name, port in INPUTS if CLASSES[name].one_camera and port.holds not in ("", "stdstars")],
)
def test_another_camera_is_refused(name: str, port: Port, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path)
    product(files[port.name], port.holds, "b3", flavor=port.flavor or "science")
    extra = ["--camera", "r0"] if len(files) == 1 and "camera" in CLASSES[name].Params.model_fields else []
    if len(files) == 1 and not extra:  # it takes many of one kind
        extra = [f"--{port.option}", product(tmp_path / "second.fits", port.holds)]

    status, out = run(*line(name, files, tmp_path / "out.fits"), *extra)

    assert status == 1
    assert "more than one camera" in out
    assert "b3" in out


@pytest.mark.parametrize(
    ("name", "port"), [(name, port) for name, port in INPUTS if port.same_exposure and port.name != "frame"]
)
def test_another_exposure_is_refused_unless_asked_for(name: str, port: Port, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path)
    product(files[port.name], port.holds, expid=6)

    status, out = run(*line(name, files, tmp_path / "out.fits"))
    _, unchecked = run(*line(name, files, tmp_path / "out.fits"), "--no-check")

    assert status == 1
    assert "more than one exposure" in out
    assert "more than one exposure" not in unchecked


@pytest.mark.parametrize(("name", "port"), [(name, port) for name, port in INPUTS if port.flavor])
def test_an_exposure_of_another_kind_is_refused(name: str, port: Port, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path)
    product(files[port.name], port.holds, flavor="science")

    status, out = run(*line(name, files, tmp_path / "out.fits"))

    assert status == 1
    assert f"expected a {port.flavor}" in out.replace("\n", " ")


@pytest.mark.parametrize("name", STEPS)
def test_a_value_that_is_none_is_refused_by_its_option(name: str, tmp_path: Path) -> None:
    fields = CLASSES[name].Params.model_fields.items()
    numbers = [key for key, info in fields if info.annotation in (int, float)]
    files = fitting(CLASSES[name], tmp_path)
    for key in numbers:
        flag = f"--{key.replace('_', '-')}"

        status, out = run(*line(name, files, tmp_path / "out.fits"), flag, "many")

        assert status == 2
        assert flag in out
        assert "many" in out


@pytest.mark.parametrize("name", STEPS)
def test_an_output_never_replaces_an_input(name: str, tmp_path: Path) -> None:
    files = fitting(CLASSES[name], tmp_path)
    first = next(iter(files.values()))
    before = first.read_bytes()

    status, out = run(*line(name, files, first))

    assert status == 1
    assert "is an input" in out
    assert first.read_bytes() == before


def flat(path: Path, level: float) -> Path:
    shape = (4, 30)
    meta = {"CAMERA": "r0", "EXPID": 3, "NIGHT": 20260115, "OBSTYPE": "FLAT"}
    write_fiberflat(
        path,
        FiberFlat(
            wave=6000.0 + np.arange(shape[1]),
            fiberflat=np.full(shape, level),
            ivar=np.ones(shape),
            mask=np.zeros(shape, np.uint32),
            meanspec=np.ones(shape[1]),
            fibers=np.arange(shape[0], dtype=np.int32),
            meta=meta,
        ),
    )
    return path


def test_a_missing_folder_is_made_and_an_old_output_replaced(tmp_path: Path) -> None:
    out = tmp_path / "not" / "there" / "mean.fits"
    for level in (0.9, 1.1):
        status, told = run("average-fiberflat", "--fiberflats", flat(tmp_path / "flat.fits", level), "-o", out)

        assert status == 0, told
        assert f"wrote {out}" in told.replace("\n", "")
        np.testing.assert_allclose(read_fiberflat(out).fiberflat, level)
    assert [path.name for path in out.parent.iterdir()] == ["mean.fits"], "nothing temporary is left"


def test_an_output_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    status, told = run(
        "average-fiberflat", "--fiberflats", flat(tmp_path / "flat.fits", 1.0), "-o", tmp_path / "file" / "mean.fits"
    )

    assert status == 1
    assert "Not a directory" in told or "File exists" in told
    assert "Errno" not in told


def test_a_frame_without_a_fibermap_has_no_sky(tmp_path: Path) -> None:
    shape = (4, 30)
    meta = {"CAMERA": "r0", "EXPID": 5, "NIGHT": 20260115, "FLAVOR": "science", "OBSTYPE": "SCIENCE"}
    frame = Frame(
        wave=6000.0 + np.arange(shape[1]),
        flux=np.ones(shape),
        ivar=np.ones(shape),
        mask=np.zeros(shape, np.uint32),
        fibers=np.arange(shape[0], dtype=np.int32),
        meta=meta,
    )
    write_frame(tmp_path / "frame.fits", frame)

    status, told = run(
        "sky", "--frame", tmp_path / "frame.fits", "--fiberflat", flat(tmp_path / "flat.fits", 1.0),
        "-o", tmp_path / "sky.fits",
    )  # fmt: skip

    assert status == 1
    assert "no fibermap" in told


def test_commands_compute_with_one_thread() -> None:
    from qlstream.cli.main import main

    with pytest.raises(SystemExit):
        main(["sky", "--help"])

    assert os.environ["OPENBLAS_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"] == "1"
