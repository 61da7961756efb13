"""What can be wrong, in Chromium: each state shows itself with its reason, and only a fresh symbol has a side to take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from playwright.sync_api import expect

from serve_app.auth import make_token
from serve_app.revocations import revoke
from tests.browser.conftest import Site
from tests.browser.forecast_page import ForecastPage

Open = Callable[..., ForecastPage]
FRIDAY_CLOSE = datetime(2026, 3, 6, 22, tzinfo=UTC)


def chip(page: ForecastPage, symbol: str) -> str:
    return page.page.locator(f"button[data-symbol={symbol}] .chip").inner_text()


def state(page: ForecastPage, symbol: str) -> str:
    return page.page.locator(f"button[data-symbol={symbol}]").get_attribute("data-state") or ""


def test_a_stale_symbol_says_why_and_shows_no_side(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    page.choose("GBPUSD")
    assert (page.text("signal"), chip(page, "GBPUSD"), page.notices()) == ("Buy", "BUY", [])
    site.publish(site.market.update(source={"connected": False, "reason": "The mt5 node is down."}))
    expect(page.page.locator("#notices")).to_have_text("The market data source is not connected: The mt5 node is down.")
    assert page.text("link-text") == "Live, data source away"
    site.late(hours=3)
    stale = page.page.locator("#notices .stale")
    expect(stale).to_contain_text(
        "Stale. No bar has closed since Wed 4 Mar, 12:00; the next was due at Wed 4 Mar, 13:00."
    )
    expect(stale).to_contain_text("The mt5 node is down.")
    assert (page.text("signal"), chip(page, "GBPUSD"), state(page, "GBPUSD")) == ("No edge", "stale", "stale")
    assert "away: The mt5 node is down." in page.text("system")
    assert "0 of 3 fresh" in page.text("system")


def test_a_side_from_a_server_that_forgot_to_take_it_back_is_not_shown(site: Site, open_page: Open) -> None:
    said = site.market.update()
    site.publish(replace(said, forecasts={k: f | {"stale": True, "reason": "Old."} for k, f in said.forecasts.items()}))
    site.board.signal_fields = lambda key: said.signals[key]  # type: ignore[method-assign]
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    page.choose("GBPUSD")
    assert (page.text("signal"), chip(page, "GBPUSD")) == ("No edge", "stale")


def test_trouble_of_another_kind_is_named_and_takes_the_side_away(
    make_site: Callable[..., Site], open_page: Open
) -> None:
    site = make_site(filled=False)
    wrong = {
        "EURUSD/H1": {"code": "data_refused", "reason": "Bars were refused."},
        "GBPUSD/H1": {"code": "new_code", "reason": "As told."},
    }
    said = site.market.update(series=wrong)
    codes = {key: {"reason_code": why["code"], "reason": why["reason"]} for key, why in wrong.items()}
    site.publish(replace(said, forecasts={k: f | codes.get(k, {}) for k, f in said.forecasts.items()}))
    site.board.signal_fields = lambda key: said.signals[key]  # type: ignore[method-assign]
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    outage = "Partial outage: in trouble: EURUSD, GBPUSD."
    assert page.notices() == ["Its newest bars were refused as unsound.", outage]
    page.choose("GBPUSD")
    assert page.notices() == ["As told.", outage]
    assert (page.text("signal"), chip(page, "GBPUSD"), state(page, "USDJPY")) == ("No edge", "problem", "fresh")


def test_a_partial_outage_names_who_is_missing_and_why(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(filled=False)
    said = site.market.update(problems={"bars USDJPY/H1": "12 bars of USDJPY are stored, 600 are needed."})
    site.publish(replace(said, forecasts={k: f for k, f in said.forecasts.items() if k != "USDJPY/H1"}))
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.notices() == ["Partial outage: missing: USDJPY."]
    assert page.text("link-text") == "Live, partly down"
    assert (state(page, "EURUSD"), chip(page, "USDJPY")) == ("fresh", "no forecast")
    assert "12 bars of USDJPY are stored" in page.text("problems")
    page.choose("USDJPY")
    expect(page.page.locator("#waiting")).to_contain_text("No forecast of USDJPY has been made on H1.")
    expect(page.page.locator("#waiting")).to_contain_text("12 bars of USDJPY are stored, 600 are needed.")


def test_a_missing_model_is_said(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(filled=False)
    site.publish(site.market.update(with_model=False))
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    assert page.notices() == ["There is no model for H1 yet: nothing new is forecast."]
    assert "none yet" in page.text("system")


def test_a_closed_market_is_no_fault_and_has_no_side(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(filled=False)
    site.market.as_of, site.clock.moment = FRIDAY_CLOSE, datetime(2026, 3, 7, 12, tzinfo=UTC)
    said = site.market.update()
    closed = {"market_open": False, "reason_code": "market_closed", "next_open": "2026-03-08T21:00:00Z"}
    site.publish(replace(said, forecasts={k: f | closed for k, f in said.forecasts.items()}))
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    page.choose("GBPUSD")
    assert page.notices() == ["The market is closed. Trading in GBPUSD goes on at Sun 8 Mar, 21:00."]
    assert (page.text("link-text"), page.text("signal"), chip(page, "GBPUSD")) == (
        "Live, market closed",
        "No edge",
        "closed",
    )
    assert "closed, opens Sun 8 Mar, 21:00" in page.text("system")
    assert "3 of 3 fresh" in page.text("system")


def test_a_lost_connection_is_said_and_mended(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token())
    page.wait_for_forecast()
    page.wait_for_link("live")
    page.choose("GBPUSD")
    before = page.as_of()
    page.page.route("**/api/v1/stream", lambda route: route.abort())
    site.drop_connections()
    page.wait_for_link("lost")
    assert page.text("link-text") == "Connection lost, trying again"
    assert page.notices()[0].startswith("The connection to the server is lost.")
    assert (page.text("signal"), chip(page, "GBPUSD")) == ("Not known", "not live")
    site.publish(site.market.close_a_bar())
    page.page.unroute("**/api/v1/stream")
    page.wait_for_link("live")
    assert page.wait_for_a_newer_bar(before, 20) == "2026-03-04T13:00:00Z"
    assert page.text("signal") == "Buy"
    page.complaints = [c for c in page.complaints if "ERR_" not in c]


def test_a_token_that_is_revoked_ends_the_session_with_the_reason(site: Site, open_page: Open) -> None:
    issued = make_token(site.settings)
    page = open_page(site.url, issued.token, locale="uk-UA")
    page.wait_for_forecast()
    revoke(site.settings.home_path, issued.token_id, datetime.fromtimestamp(issued.expires_at, UTC))
    expect(page.page.locator("#log-in-error")).to_contain_text("Токен відкликано.")
    expect(page.page.locator("#desk")).to_be_hidden()
    assert page.page.evaluate("sessionStorage.length") == 0
    page.prefer("language", "en")
    expect(page.page.locator("#log-in-error")).to_contain_text("The token has been revoked.")
    page.complaints = [c for c in page.complaints if "401" not in c]


def test_an_expired_token_says_so(site: Site, open_page: Open) -> None:
    page = open_page(site.url, site.token(days=1, now=time.time() - 2 * 86400))
    expect(page.page.locator("#log-in-error")).to_contain_text("The token has expired.")
    page.complaints = [c for c in page.complaints if "401" not in c]
