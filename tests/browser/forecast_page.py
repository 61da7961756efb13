"""The page as a trader meets it: open it, log in, read what it says. Works on any running LSTMC, also a live cluster:

page = ForecastPage.open(browser, "http://127.0.0.1:8000", token)
page.wait_for_forecast(); page.wait_for_a_newer_bar(page.as_of()); page.close()
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect


class ForecastPage:
    """`complaints`: console errors, failed requests and script errors; `foreign`: requests to any other host."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self._note(r.url))

    @classmethod
    def open(
        cls,
        browser: Browser,
        url: str,
        token: str | None = None,
        *,
        width: int = 1400,
        height: int = 900,
        dark: bool = False,
        locale: str = "en-GB",
        time_zone: str = "UTC",
    ) -> ForecastPage:
        """A new tab of a browser that speaks `locale`; with a token, logged in by the form."""
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=width < 500,
            locale=locale,
            timezone_id=time_zone,
        )
        page = cls(context.new_page(), url)
        page.page.goto(f"{url}/", wait_until="commit")  # the page works before Plotly has come
        if token:
            page.log_in(token)
        return page

    def _note(self, address: str) -> None:
        self.asked.append(address)
        if not address.startswith(("data:", "blob:")) and urlsplit(address).netloc != urlsplit(self.url).netloc:
            self.foreign.append(address)

    # What a trader does

    def log_in(self, token: str) -> None:
        self.page.locator("#token").fill(token)
        self.page.locator("#token").press("Enter")

    def prefer(self, name: str, value: str) -> None:
        """`name`: language, theme or zone."""
        self.page.locator(f"#{name}").select_option(value)

    def choose(self, symbol: str) -> None:
        self.page.locator(f"button[data-symbol={symbol}]").click()

    # What a trader sees

    @property
    def banner(self) -> str:
        return self.page.locator("#banner strong").inner_text() if self.page.locator("#banner").is_visible() else ""

    def text(self, element: str) -> str:
        return self.page.locator(f"#{element}").inner_text()

    def as_of(self) -> str:
        return self.page.locator("#chart").get_attribute("data-as-of") or ""

    def symbols(self) -> list[str]:
        return [str(b.get_attribute("data-symbol")) for b in self.page.locator("#symbols button").all()]

    def notices(self) -> list[str]:
        return self.page.locator("#notices li").all_inner_texts()

    def axe(self) -> list[str]:
        """What axe-core finds against WCAG and its best practices: rule, and the elements."""
        found = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {[node['target'] for node in v['nodes']]}" for v in found]

    def candles(self) -> int:
        return int(
            self.page.evaluate("document.querySelector('#chart').data.find(t => t.type === 'candlestick').x.length")
        )

    def last_candle(self) -> float:
        return float(
            self.page.evaluate("document.querySelector('#chart').data.find(t => t.type === 'candlestick').close.at(-1)")
        )

    def fan(self) -> list[float]:
        """The 80 % interval's ends at the longest horizon, as drawn."""
        return self.page.evaluate(
            "(() => { const y = document.querySelector('#chart').data[1].y; return [y[40], y[41]]; })()"
        )

    def wait_for_forecast(self, seconds: float = 40) -> None:
        expect(self.page.locator("#forecast")).to_be_visible(timeout=seconds * 1000)
        expect(
            self.page.locator("#chart .trace.boxes, #chart .boxlayer path, #chart .candlestick").first
        ).to_be_attached(timeout=seconds * 1000)

    def wait_for_a_newer_bar(self, than: str, seconds: float = 120) -> str:
        self.page.wait_for_function(
            "than => document.querySelector('#chart').dataset.asOf > than", arg=than, timeout=seconds * 1000
        )
        return self.as_of()

    def wait_for_link(self, state: str, seconds: float = 20) -> None:
        expect(self.page.locator("body")).to_have_attribute("data-link", state, timeout=seconds * 1000)

    def screenshot(self, path: Path | str, *, full: bool = False) -> None:
        self.page.screenshot(path=str(path), full_page=full)

    def close(self) -> None:
        """End the tab; AssertionError when it complained or asked anything of another host."""
        self.page.context.close()
        assert self.foreign == [], f"requests to other hosts: {self.foreign}"
        assert self.complaints == [], f"the browser complained: {self.complaints}"
