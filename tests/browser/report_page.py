"""report.html in a real browser: opened from its file, drawn, with what it complained about and asked of others."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page

# (width, height, dark): a desk and a phone, each by day and by night
SIZES = [(1280, 900, False), (1280, 900, True), (390, 844, False), (390, 844, True)]


def open_report(
    browser: Browser, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1.0
) -> tuple[Page, list[str]]:
    """A tab in which every plot is drawn, and its complaints: errors, warnings, requests that leave the file."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
    )
    page, complaints = context.new_page(), []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else complaints.append(r.url))
    page.goto(path.resolve().as_uri())
    page.wait_for_function("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))")
    return page, complaints
