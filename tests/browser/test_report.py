"""The report in a real browser, on a desk and a phone, by day and by night: drawn, readable, asking nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from market.timeframes import Timeframe
from tests.browser.report_page import SIZES, open_report
from tuning.cross_validate import cross_validate
from tuning.evaluate import finite, judged_report
from tuning.evidence import evidence
from tuning.presets import load_preset
from tuning.promotion import judge
from tuning.report import write_report
from tuning.worlds import World, simulate

PRESET = replace(load_preset("econometric"), folds=3)
# The least contrast that WCAG 2.1 asks of small text is 4.5; lines and marks need 3.
CONTRAST = """() => {
  const light = c => { const x = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * x[0] + .7152 * x[1] + .0722 * x[2] };
  const parse = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const paper = light(parse(getComputedStyle(document.body).backgroundColor));
  const of = [...document.querySelectorAll('.plot .xtick text, .plot .ytick text, .plot .legendtext, td, p, small, th')];
  const ratio = e => { const style = getComputedStyle(e), ink = light(parse(e.closest('svg') ? style.fill : style.color));
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) };
  return Math.min(...of.map(ratio)) }"""


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    bars = simulate(World(weeks=30, symbols=("EURUSD", "GBPUSD", "USDJPY")), seed=3)
    oof = cross_validate(bars, Timeframe.H1, PRESET)
    leaks = {"truncated_future": {"passed": True, "value": 0.0, "limit": 1e-6, "detail": ""}}
    report = judged_report(oof, judge(oof), Timeframe.H1, PRESET) | {"leak_tests": leaks}
    rest = {"bars": {}, "excluded": {}, "cpu_seconds": 1.0, "serves": {}}
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, finite(report | evidence(oof, report, bars, Timeframe.H1, PRESET) | rest), oof)
    return path


@pytest.mark.parametrize(("width", "height", "dark"), SIZES)
def test_it_is_drawn_and_readable_and_fits_its_screen(browser, report_file, width, height, dark):
    page, complaints = open_report(browser, report_file, width=width, height=height, dark=dark)
    assert complaints == []
    assert page.locator(".plot .main-svg").count() >= 12
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "only tables may scroll sideways"
    assert page.evaluate(CONTRAST) >= 4.5
    page.context.close()


def test_it_follows_the_reader_from_day_to_night(browser, report_file):
    page, complaints = open_report(browser, report_file)
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    day = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} !== {day!r}")
    assert complaints == []
    page.context.close()
