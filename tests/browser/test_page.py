"""The page in Chromium: logging in, living through bars, staleness and lost connections, without a complaint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site
from tests.browser.forecast_page import ForecastPage

Open = Callable[..., ForecastPage]


def test_a_token_shows_the_forecasts_and_never_stands_in_the_address(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.banner == "SIMULATED MARKET"
    assert page.symbols() == ["EURUSD", "GBPUSD", "USDJPY"]
    assert (page.text("symbol"), page.text("frame"), page.text("price")) == (
        "EURUSD",
        "H1",
        f"{site.market.bars['EURUSD'][-1][4]:.5f}",
    )
    assert "in 8 of 10 cases" in page.text("sentence")
    assert page.text("signal") == "No edge"
    assert page.text("signal-why") == "Next-bar direction not promoted: −0.4% log-loss skill against coin (t = 0.8)"
    assert "3.1% better than HAR + hour-of-week by QLIKE (t −4.2, n = 5,712)." in page.text("skill")
    assert "81.0% of 210 outcomes" in page.text("skill")
    assert "h1-2f9c64e1aa07b35d" in page.text("facts")
    assert "bars@412" in page.text("facts")
    assert page.page.url == f"{site.url}/"
    assert not any("token" in address for address in page.asked)


def test_logging_in_by_the_form(site: Site, open_page: Open) -> None:
    page = open_page(site.url)
    expect(page.page.get_by_label("Token")).to_be_focused()
    assert page.banner == "SIMULATED MARKET"  # also before anybody has logged in
    page.log_in(site.token())
    page.wait_for_forecast()
    page.page.get_by_role("button", name="Log out").click()
    expect(page.page.get_by_label("Token")).to_be_visible()
    assert page.page.evaluate("sessionStorage.length") == 0


def test_a_bad_token_is_explained(site: Site, open_page: Open) -> None:
    page = open_page(site.url)
    page.log_in("токен…")  # cannot stand in a header, so it is not even sent
    expect(page.page.locator("#log-in-error")).to_contain_text("That is no token.")
    page.log_in("nonsense")
    expect(page.page.locator("#log-in-error")).to_contain_text("The token is malformed.")
    page.complaints = [c for c in page.complaints if "401" not in c]  # the browser itself logs a refused request


def test_a_closing_bar_moves_candles_and_fan(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    before, fan, asked = page.as_of(), page.fan(), len(page.asked)
    site.publish(site.market.close_a_bar())
    assert page.wait_for_a_newer_bar(before, 10) == "2026-03-04T13:00:00Z"
    close = site.market.bars["EURUSD"][-1][4]
    assert page.last_candle() == close
    assert page.text("price") == f"{close:.5f}"
    assert page.fan() != fan
    assert len(page.asked) == asked  # all of it came over the stream


def test_another_symbol_is_one_click_or_key_away(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    page.choose("USDJPY")
    assert page.text("price") == f"{site.market.bars['USDJPY'][-1][4]:.3f}"
    page.page.keyboard.press("ArrowUp")
    expect(page.page.locator("#symbol")).to_have_text("GBPUSD")
    assert page.text("signal") == "Buy"
    assert "2.4 bp net of spread" in page.text("signal-why")


def test_how_many_bars_are_shown_can_be_chosen(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.candles() == 120
    page.page.get_by_role("button", name="48 bars").click()
    page.page.wait_for_function(
        "document.querySelector('#chart').data.find(t => t.type === 'candlestick').x.length === 48"
    )


def test_before_the_first_forecast_the_page_waits_and_then_fills(
    make_site: Callable[..., Site], open_page: Open
) -> None:
    site = make_site(filled=False)
    page = open_page(site.url, site.token())
    expect(page.page.locator("#waiting")).to_contain_text("History is being loaded")
    site.publish(
        site.market.update(
            with_model=False, with_forecasts=False, problems={"champion H1": "There is no champion yet."}
        )
    )
    expect(page.page.locator("#waiting-list")).to_contain_text("There is no champion yet.")
    site.publish(site.market.update())
    page.wait_for_forecast()


def test_a_token_without_signals_says_so(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token(scopes=("read",)))
    page.wait_for_forecast()
    assert page.text("signal") == "Not in this token"


def test_on_a_phone_everything_is_there(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token(), width=390, height=844)
    page.wait_for_forecast()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.candles() == 48
    for part in ("banner", "price", "signal", "gauge", "record-bar", "chart", "horizons", "skill", "facts", "system"):
        assert page.page.locator(f"#{part}").is_visible(), part


def test_a_recorded_market_is_named(make_site: Callable[..., Site], open_page: Open, tmp_path: Path) -> None:
    site = make_site(market="recorded", bars_dir=tmp_path)
    page = open_page(site.url)
    assert page.banner == "RECORDED MARKET"


def test_a_simulated_market_behind_a_data_api_is_named(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(filled=False, market="http", data_api_url="http://10.8.0.2:8001")
    site.publish(site.market.update(source={"connected": True, "market": "simulated"}))
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.banner == "SIMULATED MARKET"


def test_a_live_market_has_no_banner(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(market="mt5")
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.banner == ""


def test_the_page_object_notices_what_it_should(site: Site, open_page: Open) -> None:
    page = open_page(site.url)
    page.page.evaluate(
        "console.error('boom'); document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/x.png'}))"
    )
    with pytest.raises(AssertionError, match=r"elsewhere\.example"):
        page.close()
    page.foreign = []
    assert any("boom" in c for c in page.complaints)
    assert any("Content Security Policy" in c for c in page.complaints)
    page.complaints = []
