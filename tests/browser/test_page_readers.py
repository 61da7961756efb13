"""The page for every reader, in Chromium: two languages, day and night, UTC or local time, a phone, no mouse, no sight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from playwright.sync_api import expect

from market.forecasts import BoardUpdate
from serve_app.plain_words import skill_sentence
from tests.browser.conftest import Site
from tests.browser.forecast_page import ForecastPage

Open = Callable[..., ForecastPage]
LIVE = {"live_value": 0.021, "live_t": -1.3, "live_n": 1210, "live_since": "2026-02-02T00:00:00Z"}


def coded(update: BoardUpdate) -> BoardUpdate:
    """With reason codes on the signals and a live record on the cards."""
    codes = {"EURUSD/H1": "no_gate", "GBPUSD/H1": "", "USDJPY/H1": "edge_below_spread"}
    figures = {"USDJPY/H1": {"expected_edge_bp": -0.7, "spread_bp": 1.1}}
    signals = {k: s | {"reason_code": codes[k]} | figures.get(k, {}) for k, s in update.signals.items()}
    return replace(update, signals=signals, skill={"H1": [card | LIVE for card in update.skill["H1"]]})


@pytest.fixture
def coded_site(make_site: Callable[..., Site]) -> Site:
    site = make_site(filled=False)
    site.publish(coded(site.market.update()))
    return site


def test_a_ukrainian_browser_is_spoken_to_in_ukrainian_until_its_reader_chooses(
    coded_site: Site, open_page: Open
) -> None:
    page = open_page(coded_site.url, locale="uk-UA")
    expect(page.page.get_by_role("heading", name="Вхід")).to_be_visible()
    page.log_in(coded_site.token())
    page.wait_for_forecast()
    close = f"{coded_site.market.bars['EURUSD'][-1][4]:.5f}".replace(".", ",")
    assert (page.banner, page.text("price"), page.text("signal")) == ("ЗМОДЕЛЬОВАНИЙ РИНОК", close, "Без переваги")
    assert page.text("signal-why").startswith(
        "Жодна модель напряму не пройшла перевірки: переваги не виявлено; на 0,4%"
    )
    assert "наступні 24 бари" in page.text("sentence")
    assert "На 3,1% краще, ніж HAR + година тижня, за QLIKE (t −4,2, n = 5\xa0712)." in page.text("skill")
    assert "Наживо з 2 лют. 2026 р.: на 2,1% краще, ніж HAR + година тижня, за QLIKE (t −1,3" in page.text(
        "record-skill"
    )
    page.choose("USDJPY")
    assert page.text("signal-why") == "Очікується 0,40 б. п. за спреду 1,10 б. п."
    coded_site.publish(coded_site.market.update(source={"connected": False, "reason": "The mt5 node is down."}))
    coded_site.late(hours=3)
    stale = page.page.locator("#notices .stale")
    expect(stale).to_have_text(
        "Застаріло. Після ср, 4 бер., 12:00 не закрився жоден бар; наступний очікувався ср, 4 бер., 13:00. "
        "Джерело ринкових даних не під’єднане: The mt5 node is down."
    )
    page.prefer("language", "en")
    expect(stale).to_contain_text("No bar has closed since Wed 4 Mar, 12:00")
    page.page.reload()
    expect(stale).to_contain_text("No bar has closed since")
    assert page.page.locator("html").get_attribute("lang") == "en"


def test_the_tile_waits_for_the_outcomes_of_its_own_horizon(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(filled=False)
    update = site.market.update()
    known = {"rv24": "0 closes have known outcomes.", "sign1": "3 closes have known outcomes."}
    cards = [
        card | {"live_coverage80": None, "live_reason": known.get(card["target"], "")} for card in update.skill["H1"]
    ]
    site.publish(replace(update, skill={"H1": cards[::-1]}))
    page = open_page(site.url)
    page.log_in(site.token())
    page.wait_for_forecast()
    assert page.text("record-of") == "No live outcome is known yet."
    assert page.text("record-skill") == "0 closes have known outcomes."


def test_the_page_says_of_skill_what_the_api_says(coded_site: Site, open_page: Open) -> None:
    page = open_page(coded_site.url, coded_site.token(), locale="de-DE")  # a language it has no texts in: English
    page.wait_for_forecast()
    items = [" ".join(item.split()) for item in page.page.locator("#skill li").all_inner_texts()]
    cards: list[dict[str, Any]] = coded_site.board.update.skill["H1"]
    assert len(items) == len(cards) == 4
    for item, card in zip(items, cards, strict=True):
        target, sentence = skill_sentence(card).split(": ", 1)
        assert target in item
        assert sentence[0].upper() + sentence[1:] in item


def test_times_are_utc_or_those_of_the_reader(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token(), time_zone="Europe/Kyiv")
    page.wait_for_forecast()
    assert page.text("as-of") == "as of Wed 4 Mar, 12:00 UTC"
    page.prefer("zone", "local")
    expect(page.page.locator("#as-of")).to_have_text("as of Wed 4 Mar, 14:00 EET")
    page.page.wait_for_function(
        "() => document.querySelector('#chart').layout.xaxis.ticktext.at(-2).startsWith('14:00')"
    )
    assert page.text("chart-zone") == "Times in EET"


def test_day_and_night_by_the_system_or_by_choice(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token(), dark=True)
    page.wait_for_forecast()
    paper = "getComputedStyle(document.body).backgroundColor"
    candle = "document.querySelector('#chart').data.find(t => t.type === 'candlestick').increasing.line.color"
    assert (page.page.evaluate(paper), page.page.evaluate(candle)) == ("rgb(14, 19, 24)", "rgb(63, 191, 146)")
    page.prefer("theme", "light")
    page.page.wait_for_function(f"() => {candle} === 'rgb(15, 116, 86)'")
    page.page.reload()
    page.wait_for_forecast()
    assert page.page.evaluate(paper) == "rgb(250, 249, 246)"
    page.prefer("theme", "auto")
    page.page.wait_for_function(f"() => {paper} === 'rgb(14, 19, 24)'")
    page.page.emulate_media(color_scheme="light")
    page.page.wait_for_function(f"() => {candle} === 'rgb(15, 116, 86)'")


def test_it_fits_and_is_accessible_at_both_sizes_in_both_themes_and_languages(
    coded_site: Site, open_page: Open
) -> None:
    page = open_page(coded_site.url)
    expect(page.page.locator("#token")).to_be_focused()
    assert page.axe() == []
    page.log_in(coded_site.token())
    page.wait_for_forecast()
    for language, dark, (width, height) in product(("uk", "en"), (False, True), ((390, 844), (1400, 900))):
        page.prefer("language", language)
        page.page.emulate_media(color_scheme="dark" if dark else "light")
        page.page.set_viewport_size({"width": width, "height": height})
        expect(page.page.locator("html")).to_have_attribute("lang", language)
        page.page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        assert page.axe() == [], (language, dark, width)
    coded_site.late(hours=3)
    expect(page.page.locator("#notices .stale")).to_be_visible()
    assert page.axe() == []


def test_everything_is_reached_without_a_mouse(site: Site, open_page: Open) -> None:
    page = open_page(site.url)
    expect(page.page.locator("#token")).to_be_focused()
    page.page.keyboard.insert_text(site.token())
    page.page.keyboard.press("Enter")
    page.wait_for_forecast()
    assert page.page.locator("#announce").get_attribute("role") == "status"  # for those who listen
    expect(page.page.locator("#announce")).to_contain_text("EURUSD: bar of 12:00, close")
    page.page.reload()  # from the top
    page.wait_for_forecast()
    seen = []
    for _ in range(40):
        page.page.keyboard.press("Tab")
        seen.append(page.page.evaluate(FOCUSED))
        if seen[-1][0] == "body":  # the end of the page
            break
    names = [name for name, _ in seen]
    assert names[0] == "Skip to the forecast"
    for name in (
        "language",
        "theme",
        "zone",
        "log-out",
        "EURUSD",
        "GBPUSD",
        "USDJPY",
        "48 bars",
        "240 bars",
        "API description",
    ):
        assert name in names, names
    assert all(visible for _, visible in seen[:-1]), f"focus does not show: {[n for n, v in seen[:-1] if not v]}"
    page.page.locator("button[data-symbol=EURUSD]").focus()
    for key, symbol in (
        ("ArrowDown", "GBPUSD"),
        ("End", "USDJPY"),
        ("ArrowDown", "EURUSD"),
        ("ArrowUp", "USDJPY"),
        ("Home", "EURUSD"),
    ):
        page.page.keyboard.press(key)
        expect(page.page.locator("#symbol")).to_have_text(symbol)
        expect(page.page.locator(f"button[data-symbol={symbol}]")).to_be_focused()
    page.page.locator(".skip").focus()
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#main")).to_be_focused()


# What has the focus, and whether its ring shows and lies on the screen.
FOCUSED = """() => { const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return [e.dataset.symbol || e.id || (e === document.body && 'body') || e.textContent.trim(), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
    && box.right > 0 && box.width > 0] }"""
