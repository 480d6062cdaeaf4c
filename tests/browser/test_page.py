"""The page, as an operator on call meets it: real server, real Chromium.

Every page that these tests open is also checked for requests that leave its own server and for
complaints on the console (see `open_page` in conftest.py).
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tidewarden.frames import SeriesKey

pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
expect.set_options(timeout=20_000)  # the chart library alone is 5 MB to parse, which a busy machine takes its time for

EXPLANATION = "latency_ms 412, expected 85–115, 9 min; drives 71 % of node n2"
HOT_CELL = '[data-path="shop/eu/n2"]'
HOT_CHART = "#/series/shop/eu/n2/latency_ms"


def test_heat_map_shows_every_node_coloured_by_its_score(site, open_page):
    """Twelve nodes stand on the map, the hot one in the hottest colours and named so to a screen reader."""
    page = open_page(site)
    cells = page.locator("#heatmap .cell")
    expect(cells).to_have_count(12)
    expect(page.locator('#heatmap .cell[data-level="none"]')).to_have_count(0)
    hot = page.locator(HOT_CELL)
    expect(hot).to_have_attribute("data-level", "9")
    expect(hot).to_have_attribute("aria-label", "n2: score 0.97, critical, 1 open anomaly")
    colours = cells.evaluate_all("cells => cells.map((cell) => getComputedStyle(cell).backgroundColor)")
    assert len(set(colours)) >= 2
    assert "rgba(0, 0, 0, 0)" not in colours


def test_what_is_wrong_is_said_in_one_sentence(site, open_page):
    """The line on top says how many alerts fire, which is worst and why, and links to its chart."""
    page = open_page(site)
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("latency_ms spike on shop/eu/n2")
    expect(verdict).to_contain_text("expected 85–115")
    verdict.get_by_role("link").click()
    expect(page).to_have_url(re.compile(re.escape(HOT_CHART)))


def test_click_leads_to_a_chart_with_band_and_explanation(site, open_page):
    """One click on the hot node opens its worst metric: value, band, marked and explained anomaly."""
    page = open_page(site)
    page.locator(HOT_CELL).click()
    expect(page).to_have_url(re.compile(re.escape(HOT_CHART)))
    expect(page.locator("#series-title")).to_have_text("latency_ms")
    expect(page.locator("#plot .scatterlayer path.js-fill").first).to_be_attached()  # the band
    expect(page.locator("#plot .shapelayer path").first).to_be_attached()  # the shaded anomaly
    expect(page.locator("#series-anomalies")).to_contain_text(EXPLANATION)
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("1 anomalies in view"))
    plot = page.locator("#plot .nsewdrag").first.bounding_box()
    page.mouse.move(plot["x"] + plot["width"] - 3, plot["y"] + 40)
    expect(page.locator("#plot .hoverlayer")).to_contain_text("spike: latency_ms 412, expected 85–115")
    expect(page.locator("#plot .hoverlayer")).to_contain_text("UTC")


def test_zoom_names_the_range_in_the_address_and_a_double_click_takes_it_back(site, open_page):
    """Dragging zooms in, the address can be passed on, and a double click returns to the live chart."""
    page = open_page(site, "/" + HOT_CHART)
    expect(page.locator(".live")).to_be_visible()
    plot = page.locator("#plot .nsewdrag").first
    expect(plot).to_be_visible()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 60, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    expect(page.locator(".live")).to_be_hidden()
    plot.dblclick(position={"x": 100, "y": 60})
    expect(page.locator(".live")).to_be_visible()
    assert "from=" not in page.url


def test_a_link_with_a_range_opens_that_range(site, open_page):
    """What an alert's link names is what the chart shows; missing readings are marked."""
    start, end = site.now - 60 * 60_000, site.now - 20 * 60_000
    page = open_page(site, f"/#/series/shop/us/n1/cpu_percent?from={start}&to={end}")
    expect(page.locator("#plot .nsewdrag").first).to_be_visible()
    shown = page.evaluate("document.getElementById('plot')._fullLayout.xaxis.range.map((t) => new Date(t).getTime())")
    assert shown == [start, end]
    gap = page.evaluate("document.getElementById('plot').data.find((t) => t.name === 'missing').x.length")
    assert gap == 10


def test_a_live_anomaly_appears_without_reload(site, open_page, new_anomaly):
    """What a detector publishes stands in the list, on the map and in the count a moment later."""
    page = open_page(site)
    page.locator("#tab-anomalies").click()
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    key = SeriesKey("bank", "us", "n3", "cpu_percent")
    anomaly = new_anomaly(key, site.now, minutes=3, score=0.93, explanation="came just now")
    expect(page.locator("#panel-anomalies")).not_to_contain_text("came just now")
    site.publish(anomaly)
    expect(page.locator("#panel-anomalies")).to_contain_text("came just now")
    expect(page.locator('[data-path="bank/us/n3"]')).to_have_attribute("data-open", "1")


def test_acknowledging_is_shown_at_once_and_survives_a_reload(site, open_page):
    """Name and note are kept by the server, and the sentence on top counts the alert no longer as waiting."""
    page = open_page(site)
    item = page.locator("#panel-alerts .item", has_text="cpu_percent unusual on shop/us/n1")
    item.get_by_role("button", name=re.compile("Acknowledge")).click()
    item.get_by_label("Your name").fill("Ada")
    item.get_by_label("Note, optional").fill("looking at it")
    item.get_by_label("Note, optional").press("Enter")
    expect(item).to_contain_text("✓ Ada")
    page.reload()
    expect(item).to_contain_text("✓ Ada")
    expect(item).to_contain_text("looking at it")
    expect(page.locator("#verdict")).to_contain_text("1 not acknowledged")


def test_a_failed_acknowledgement_is_taken_back_and_says_why(site, open_page):
    """When the server refuses, the button returns with the server's own words beside it."""
    page = open_page(site, expect_problems=True)
    problem = '{"title": "Unavailable", "detail": "the store is being moved", "status": 503}'
    page.route("**/acknowledge", lambda route: route.fulfill(status=503, body=problem, content_type="application/json"))
    item = page.locator("#panel-alerts .item", has_text="latency_ms spike on shop/eu/n2")
    item.get_by_role("button", name=re.compile("Acknowledge")).click()
    item.get_by_label("Your name").fill("Ada")
    item.get_by_label("Your name").press("Enter")
    expect(item.get_by_role("alert")).to_contain_text("the store is being moved")
    expect(item.get_by_role("button", name=re.compile("Acknowledge"))).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/" + HOT_CHART])
def test_a_phone_needs_no_sideways_scrolling(site, open_page, path):
    """At 390 pixels everything fits the width, on the map and on a chart."""
    page = open_page(site, path, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    expect(page.locator("#plot .nsewdrag" if "series" in path else HOT_CELL).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_mode_follows_the_system_and_the_button_overrules_it(site, open_page):
    """A dark system gives a dark page; the button's choice wins and is remembered."""
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page = open_page(site, color_scheme="dark")
    assert max(page.evaluate(background)) < 60
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_have_attribute("aria-label", "Colour theme: light")
    assert min(page.evaluate(background)) > 200
    page.reload()
    assert min(page.evaluate(background)) > 200


def test_keyboard_alone_reaches_the_chart_and_comes_back(site, open_page):
    """The map is one tab stop, arrows move in it, Enter opens, Escape returns to the same cell."""
    page = open_page(site)
    expect(page.locator(HOT_CELL)).to_have_attribute("data-level", "9")
    expect(page.locator('#heatmap .cell[tabindex="0"]')).to_have_count(1)
    page.locator('#heatmap .cell[tabindex="0"]').focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(HOT_CELL)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(HOT_CHART)))
    expect(page.locator("#back")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#fleet")).to_be_visible()
    expect(page.locator(HOT_CELL)).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()


def test_filter_narrows_map_and_lists(site, open_page):
    """What is typed stays, what does not match goes, on the map and among the alerts."""
    page = open_page(site)
    expect(page.locator("#panel-alerts .list > .item")).to_have_count(2)
    page.locator("#filter").fill("shop/eu")
    expect(page.locator("#heatmap .cell:visible")).to_have_count(3)
    expect(page.locator("#panel-alerts .list > .item")).to_have_count(1)
    page.locator("#filter").fill("no such thing")
    expect(page.locator("#heatmap")).to_contain_text("No node matches the filter.")


def test_rejected_readings_are_listed_with_their_reasons(site, open_page):
    """The count beside the rate opens the list; each entry says what was wrong and what to do."""
    page = open_page(site)
    expect(page.locator("#number-rejected")).to_have_text("2")
    page.locator("#show-rejected").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("value 'abc' is not a number: send a number or null")
    dialog.get_by_role("button", name=re.compile("unknown tenant")).click()
    expect(dialog.locator(".rejection")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_detectors_say_whether_they_are_ready(site, open_page):
    """Health names each detector, and of one that learns how far it is."""
    page = open_page(site)
    expect(page.locator("#health")).to_contain_text("shop-auto")
    expect(page.locator("#health")).to_contain_text("learning, 34 of 120 readings")


def test_before_the_first_reading_the_page_says_what_to_do(empty_site, open_page):
    """An empty product is explained, with a command that would fill it."""
    page = open_page(empty_site)
    expect(page.locator("#heatmap")).to_contain_text("No reading has arrived yet")
    expect(page.locator("#heatmap")).to_contain_text("curl")


def test_a_lost_connection_is_said_and_mended(empty_site, open_page):
    """When the server goes the page says so and when it tries again; when it is back, so is everything."""
    page = open_page(empty_site, expect_problems=True)
    expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    empty_site.stop()
    expect(page.locator("#banner")).to_contain_text("The connection to the server is lost")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text(re.compile("offline|connecting"))
    again = empty_site.restart(populated=True)
    try:
        expect(page.locator("#heatmap .cell")).to_have_count(12)
        expect(page.locator("#banner")).to_be_hidden()
    finally:
        again.stop()


def test_nothing_on_the_page_is_inline_script():
    """The content security policy forbids inline scripts; the page has none to forbid."""
    spec = importlib.util.find_spec("tidewarden_services.api")
    folder = Path(spec.submodule_search_locations[0]) / "page"
    html = (folder / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\son\w+=", html) == []


def test_an_anomaly_is_marked_wrong_and_that_is_undone(site, open_page):
    """One click beside the explanation says so, it stands there after a reload, and another click takes it back."""
    page = open_page(site, f"/{HOT_CHART}")
    item = page.locator("#series-anomalies .item").first
    item.get_by_role("button", name="Wrong").click()
    expect(item).to_contain_text("Marked wrong by")
    said = site.words(1)
    assert (said[-1].verdict, said[-1].metric, said[-1].node) == ("wrong", "latency_ms", "n2")
    page.reload()
    expect(item).to_contain_text("Marked wrong by")
    item.get_by_role("button", name="Undo").click()
    expect(item.get_by_role("button", name="Right")).to_be_visible()
    assert [word.verdict for word in site.words(2)] == ["wrong", "revoke"]
    page.reload()
    expect(item.get_by_role("button", name="Right")).to_be_visible()


def test_a_word_that_is_not_kept_is_taken_back_on_the_page(site, open_page):
    """The server's reason stands beside the buttons, which are there to try again."""
    page = open_page(site, f"/{HOT_CHART}", expect_problems=True)
    page.route("**/feedback", lambda route: route.fulfill(status=503, json={"detail": "The bus is away."}))
    item = page.locator("#series-anomalies .item").first
    item.get_by_role("button", name="Right").click()
    expect(item.get_by_role("alert")).to_contain_text("Not kept: The bus is away.")
    expect(item.get_by_role("button", name="Wrong")).to_be_visible()
