"""Settings come from four sources, and every mistake is told at once."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from qlstream.configs import config_path
from qlstream.settings import Settings, SettingsError, load_settings


def test_the_shipped_file_names_every_setting_with_the_default_of_the_model():
    shipped = yaml.safe_load(config_path("default.yaml").read_text())

    assert shipped == Settings().model_dump(mode="json")


def test_the_later_source_wins(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("raw: /site/raw\nengine: {workers: 2, retries: 3}\ndashboard: {port: 1111}\n")
    environ = {
        "DESI_SPECTRO_DATA": "/desi/raw",
        "DESI_SPECTRO_REDUX": "/desi/redux",
        "SPECPROD": "daily",
        "DESI_SPECTRO_CALIB": "/desi/calib",
        "QLSTREAM_DASHBOARD_PORT": "2222",
        "QLSTREAM_ENGINE_WORKERS": "4",
        "QLSTREAM_CALIB": "",
    }

    settings = load_settings(site, {"dashboard.port": 3333, "engine.retries": None}, environ)

    assert settings.raw == Path("/site/raw")
    assert settings.redux == Path("/desi/redux/daily")
    assert settings.calib == Path("/desi/calib")
    assert (settings.engine.workers, settings.engine.retries, settings.dashboard.port) == (4, 3, 3333)
    assert settings.ingest.scan_s == 10.0
    sources = {row.key: row.source for row in settings.describe()}
    assert sources["raw"] == str(site)
    assert sources["calib"] == "DESI_SPECTRO_CALIB"
    assert sources["engine.workers"] == "QLSTREAM_ENGINE_WORKERS"
    assert sources["dashboard.port"] == "--port"
    assert sources["ingest.scan_s"].endswith("default.yaml")


def test_the_site_file_may_be_named_by_the_environment(tmp_path):
    (tmp_path / "site.yaml").write_text("engine: {workers: 2}\n")

    assert load_settings(environ={"QLSTREAM_CONFIG": str(tmp_path / "site.yaml")}).engine.workers == 2


def test_lists_are_written_with_commas_in_the_environment():
    environ = {"QLSTREAM_ENGINE_PRODUCTS": "preproc, psf", "QLSTREAM_INGEST_ONLY_NIGHTS": "20260114,20260115"}

    settings = load_settings(environ=environ)

    assert settings.engine.products == ("preproc", "psf")
    assert settings.ingest.only_nights == (20260114, 20260115)


def test_every_mistake_is_told_at_once_with_key_bound_value_and_source(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("engine: {workers: 0, wrokers: 3}\ningest: 5\nfoo: 1\n")
    environ = {"QLSTREAM_INGEST_SCAN_S": "soon", "QLSTREAM_ENGINE_WORKER": "3", "QLSTREAM_SHARED_DATA": "/x"}

    with pytest.raises(SettingsError) as caught:
        load_settings(site, {"dashboard.port": 99999}, environ)

    told = str(caught.value)
    print(told)
    assert told.splitlines()[0] == "7 wrong settings"
    assert f"engine.workers: Input should be greater than or equal to 1, got 0 ({site})" in told
    assert f"engine.wrokers: no such setting; did you mean engine.workers? ({site})" in told
    assert f"ingest: expected keys with values, got 5 ({site})" in told
    assert f"foo: no such setting ({site})" in told
    assert "ingest.scan_s: Input should be a valid number" in told
    assert "got 'soon' (QLSTREAM_INGEST_SCAN_S)" in told
    assert "QLSTREAM_ENGINE_WORKER: no such setting; did you mean QLSTREAM_ENGINE_WORKERS?" in told
    assert "dashboard.port: Input should be less than or equal to 65535, got 99999 (--port)" in told
    assert told.splitlines()[-1] == "`qlstream config show` lists every key with its bounds"


@pytest.mark.parametrize("text", ["engine: [", "- just\n- a list", "\0"])
def test_a_site_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    site = tmp_path / "site.yaml"
    site.write_text(text)

    with pytest.raises(SettingsError, match=r"1 wrong setting\n.*site\.yaml: "):
        load_settings(site, environ={})


def test_a_site_file_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match=r"/nowhere/site\.yaml: cannot be read: .*No such file"):
        load_settings(Path("/nowhere/site.yaml"), environ={})


def test_what_a_command_needs_is_asked_for_at_once():
    settings = load_settings(environ={"QLSTREAM_CALIB": "/calib"})

    with pytest.raises(SettingsError) as caught:
        settings.require("raw", "calib", "redux")

    assert "raw: not given; use --raw, QLSTREAM_RAW, QL_SPEC_DATA, DESI_SPECTRO_DATA, or a file by --config" in str(
        caught.value
    )
    assert "redux: not given; use --redux, QLSTREAM_REDUX, QL_SPEC_REDUX, DESI_SPECTRO_REDUX with SPECPROD" in str(
        caught.value
    )
    assert "calib" not in str(caught.value)


def test_bad_amplifiers_and_the_series_of_darks_are_settings():
    settings = load_settings(flags={"engine.badamps": "b7D, z8a"}, environ={"DESI_SPECTRO_DARK": "/desi/darks"})

    assert settings.engine.badamps == "b7D, z8a"
    assert settings.dark == Path("/desi/darks")
    assert {row.key: row.source for row in settings.describe()}["dark"] == "DESI_SPECTRO_DARK"
    for wrong in ("b7", "x7A", "b7E", "b7A;z8A"):
        with pytest.raises(SettingsError, match="engine.badamps"):
            load_settings(flags={"engine.badamps": wrong}, environ={})


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().engine.workers = 3


def test_every_setting_has_a_meaning_and_bounds_in_words():
    rows = {row.key: row for row in Settings().describe()}

    assert all(row.description and row.bounds for row in rows.values())
    assert rows["ingest.watch"].bounds == "auto | inotify | poll | scan"
    assert rows["engine.workers"].bounds == "whole number >= 1, <= 1024; or unset"
    assert rows["raw"].bounds == "path; or unset"


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/observer")

    assert load_settings(flags={"raw": "~/raw"}, environ={}).raw == Path("/home/observer/raw")
