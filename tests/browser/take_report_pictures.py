"""Pictures of a report for the docs: `make pictures REPORT=out/report SIMULATED=out/simulated`.

What shows returns of the bars themselves is taken from the report of a simulated folder only: recorded prices stay out of the
repository, also as returns.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from configs.settings import ROOT
from tests.browser.report_page import open_report

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
FROM_REPORT = ("purging", "cumulative_rv24", "coverage_session", "reliability_sign1", "equity_sign1", "experiments")
FROM_SIMULATED = ("fan",)
LARGEST = 150_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="folder of `lstmc evaluate --experiments ...`")
    parser.add_argument("--simulated", type=Path, required=True, help="the same of bars that tuning.worlds made")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for folder, names in ((given.report, FROM_REPORT), (given.simulated, FROM_SIMULATED)):
            page, _ = open_report(browser, folder / "report.html", width=900, scale=1.25)
            for name in names:
                plot = page.locator(f"#{name}")
                if plot.count():
                    _kept(given.out / f"honesty-{name.replace('_', '-')}.png", plot.screenshot())
                else:
                    print(f"{folder} has no figure {name}")
            page.context.close()
        page, _ = open_report(browser, given.report / "report.html", width=1000, height=760)
        _kept(given.out / "report.png", page.screenshot())
        browser.close()


def _kept(path: Path, picture: bytes) -> None:
    if len(picture) > LARGEST:
        raise SystemExit(f"{path} would have {len(picture):,} bytes; {LARGEST:,} are allowed.")
    path.write_bytes(picture)
    print(f"{path}, {len(picture):,} bytes")


if __name__ == "__main__":
    main()
