"""Pictures of a running installation's page for the docs: `make screenshots` after `make up`.

Waits for a bar to close while it looks, so that what is kept is a page that has updated by itself.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from configs.settings import ROOT, load_settings
from serve_app.auth import issue_token
from tests.browser.forecast_page import ForecastPage

SIZES = {"page.png": (1400, 900, False), "page-dark.png": (1400, 900, True), "page-phone.png": (390, 844, False)}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--home", help="the installation; default LSTMC_HOME, else ./.lstmc")
    options = parser.parse_args()
    settings = load_settings(options.home)
    url, token = f"http://127.0.0.1:{settings.port}", issue_token(settings, "screenshots", days=0.1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=FLAGS
        )
        for name, (width, height, dark) in SIZES.items():
            page = ForecastPage.open(browser, url, token, width=width, height=height, dark=dark)
            page.wait_for_forecast()
            if name == "page.png":
                before = page.as_of()
                print(f"{before} -> {page.wait_for_a_newer_bar(before, 300)}, without a reload")
            page.screenshot(options.out / name)
            page.close()
            print(options.out / name)


if __name__ == "__main__":
    main()
