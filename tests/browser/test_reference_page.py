"""/docs in Chromium: drawn from this server alone, under its policy, and an operation can be tried with a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Site
from tests.browser.forecast_page import ForecastPage


@pytest.fixture
def reference(site: Site, browser: Browser) -> Iterator[Page]:
    """The page; at the end, whatever it complained about or asked of other hosts fails the test."""
    page = ForecastPage(browser.new_context(viewport={"width": 1200, "height": 900}).new_page(), site.url)
    page.page.goto(f"{site.url}/docs")
    yield page.page
    page.close()


def test_it_lists_and_tries_the_operations(site: Site, reference: Page) -> None:
    operation = reference.locator("#operations-forecasts-prediction")
    expect(operation).to_be_visible()
    expect(operation).to_contain_text("/api/v1/predictions/{symbol}")
    reference.get_by_role("button", name="Authorize").first.click()
    reference.locator(".auth-container input").fill(site.token())
    reference.locator(".auth-container button[type=submit]").click()
    reference.locator(".btn-done").click()
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("tr[data-param-name=symbol] select").select_option("GBPUSD")
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text('"symbol": "GBPUSD"')
