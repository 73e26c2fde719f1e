"""What an observer sees in a real browser."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.browser


def test_a_metric_appears_without_a_reload(open_page, night):
    page = open_page("/exposure?live=1")
    page.evaluate("window.untouched = true")
    assert page.inner_text("h1") == "ALARM"

    night.expose(1003, "science")
    page.wait_for_selector("text=Exposure 1003")
    assert page.locator("#metrics .strip-row").count() == 0
    night.process()
    done = time.perf_counter()
    page.wait_for_selector("#metrics .strip-row.s-alarm >> text=r0 C 9.3 electron")
    print(f"the page showed the last result {1e3 * (time.perf_counter() - done):.0f} ms after it was stored")

    page.wait_for_selector(".card.s-alarm >> text=r0")
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('snr').renderers[1].data_source.get_length() > 10")
    assert page.evaluate("window.untouched") is True


def test_rows_and_cells_of_the_night_fill_by_themselves(open_page, night):
    page = open_page("/")
    page.evaluate("window.untouched = true")

    night.expose(1005, "science")
    row = page.locator('[data-sort="000001005"]')
    row.wait_for()
    assert row.locator(".cell.s-queued").count() == 3
    night.process()
    row.locator(".cell.s-alarm").wait_for()

    assert "Read noise of r0 amp C is 9.3 electron" in page.inner_text("#alerts")
    assert "EXPID 1003 to 1004 never arrived" in page.inner_text("[data-list=exposures]")
    assert page.locator("[data-list=exposures] > div").first.get_attribute("data-sort") == "000001005"
    assert page.evaluate("window.untouched") is True


def test_a_page_that_lost_its_server_says_so_and_recovers_by_itself(open_page, dashboard, night):
    page = open_page("/", may_lose_server=True)
    boot = page.evaluate("page.pulse.boot")

    dashboard.kill()
    page.wait_for_selector(".badge.late", timeout=10_000)  # 5 s after the last heartbeat
    page.evaluate("page.beat -= 30000")  # as if half a minute had passed
    page.wait_for_selector(".badge.dead")
    page.wait_for_selector("html.stale #outage:visible")
    dashboard.start()
    page.wait_for_selector(".badge.live", timeout=20_000)

    assert page.evaluate("page.pulse.boot") != boot
    night.expose(1003, "science")
    page.wait_for_selector('[data-sort="000001003"] >> text=1003')
    assert page.locator("#outage").is_hidden()


def test_a_fiber_is_chosen_by_key_and_stands_in_the_url(open_page, night):
    page = open_page(f"/camera?night={night.night}&expid=1002&camera=r0&fiber=5")
    before = page.evaluate(
        "Array.from(Bokeh.documents[0].get_model_by_name('spectrum').renderers[2].data_source.data.flux)"
    )

    page.keyboard.press("]")
    page.wait_for_function("document.querySelector('#spectrum-controls input[type=number]').value === '6'")
    page.wait_for_function(
        "old => Bokeh.documents[0].get_model_by_name('spectrum').renderers[2].data_source.data.flux[7] !== old[7]",
        arg=before,
    )

    assert "fiber=6" in page.url
    page.reload()
    page.wait_for_selector("#spectrum-controls input[type=number][value='6']")


def test_a_click_on_the_figure_of_all_fibers_chooses_the_nearest(open_page, night):
    page = open_page(f"/camera?night={night.night}&expid=1002&camera=r0&fiber=5")
    page.wait_for_timeout(500)
    figure = page.locator(".figure").nth(2)
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()

    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.4 * box["height"])

    page.wait_for_function("Number(document.querySelector('#spectrum-controls input[type=number]').value) > 20")
    assert "fiber=5" not in page.url


def test_the_mask_and_the_stretch_are_switched_from_the_page(open_page, night):
    page = open_page(f"/camera?night={night.night}&expid=1002&camera=r0")
    ccd = "Bokeh.documents[0].get_model_by_name('ccd')"
    assert page.evaluate(f"{ccd}.renderers.find(r => r.name == 'mask').visible") is False

    page.check("[data-choice=mask]")
    page.select_option("[data-choice=stretch]", "log")

    page.wait_for_function(f"{ccd}.renderers.find(r => r.name == 'mask').visible")
    page.wait_for_function(f"{ccd}.renderers.find(r => r.name == 'image').glyph.color_mapper.type == 'LogColorMapper'")
    assert "mask=1" in page.url


@pytest.mark.parametrize("width", [390, 1600])
def test_no_page_is_wider_than_its_window(open_page, night, width):
    for path in ("/", f"/exposure?night={night.night}&expid=1002", f"/camera?night={night.night}&expid=1002&camera=r0"):
        page = open_page(path, width=width)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


def test_a_page_that_missed_a_heartbeat_starts_again(open_page):
    page = open_page("/")
    page.evaluate("window.untouched = true")

    with page.expect_navigation():
        page.evaluate("feel({...page.pulse, beat: page.pulse.beat + 2})")

    page.wait_for_selector(".badge.live")
    assert page.evaluate("window.untouched === undefined")


def test_the_dashboard_ends_cleanly_when_it_is_told_to(dashboard):
    assert dashboard.stop() == 0
    dashboard.start()
