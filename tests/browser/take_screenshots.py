"""Pictures of a running installation's page for the docs: `make screenshots` after `make up`.

Waits for a bar to close while it looks, so that what is kept is a page that has updated by itself.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from configs.settings import ROOT, load_settings
from serve_app.auth import issue_token
from tests.browser.forecast_page import ForecastPage

SHOTS: dict[str, dict[str, Any]] = {
    "page.png": {},
    "page-dark.png": {"dark": True},
    "page-uk.png": {"locale": "uk-UA"},
    "page-phone.png": {"width": 390, "height": 844},
}
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
        for name, given in SHOTS.items():
            page = ForecastPage.open(browser, url, token, **given)
            page.wait_for_forecast()
            if name == "page.png":
                before = page.as_of()
                print(f"{before} -> {page.wait_for_a_newer_bar(before, 300)}, without a reload")
            page.screenshot(options.out / name)
            page.close()
            print(options.out / name)


if __name__ == "__main__":
    main()
