"""The page's texts: both languages say everything, with the same figures in it, and nothing is left over."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from serve_app.page import DASHBOARD, page_html

TEXTS: dict[str, dict[str, Any]] = {
    language: json.loads((DASHBOARD / f"{language}.json").read_text()) for language in ("en", "uk")
}
PLURALS = {"en": {"one", "other"}, "uk": {"one", "few", "many", "other"}}  # CLDR's cardinal categories
SOURCES = "\n".join(path.read_text() for path in sorted(DASHBOARD.iterdir()) if path.suffix in (".js", ".html"))
# What a server may send; each must have its words in both languages.
CODES = {
    "stale": ("late_bar", "source_away", "model_missing", "data_refused", "forecast_failed", "forecaster_away"),
    "signal": ("no_gate", "edge_below_spread", "rollover", "stale", "market_closed", "no_model"),
    "side": ("buy", "sell", "none"),
    "refused": ("token_expired", "token_revoked", "token_malformed"),
    "target": ("rv", "r", "sign"),
}


def forms(text: str | dict[str, str]) -> list[str]:
    return list(text.values()) if isinstance(text, dict) else [text]


def names(text: str | dict[str, str]) -> list[set[str]]:
    return [set(re.findall(r"\{(\w+)\}", form)) for form in forms(text)]


def test_both_languages_have_the_same_keys() -> None:
    assert TEXTS["en"].keys() == TEXTS["uk"].keys()
    assert len(TEXTS["en"]) > 150


@pytest.mark.parametrize("key", TEXTS["en"])
def test_a_text_has_the_same_placeholders_in_every_form_and_is_not_empty(key: str) -> None:
    found = [TEXTS[language][key] for language in ("en", "uk")]
    placeholders = [each for text in found for each in names(text)]
    assert all(each == placeholders[0] for each in placeholders), found
    assert all(form.strip() == form and form for text in found for form in forms(text))
    assert isinstance(found[0], dict) == isinstance(found[1], dict)


@pytest.mark.parametrize("language", TEXTS)
def test_plurals_have_the_forms_of_their_language(language: str) -> None:
    plurals = [text for text in TEXTS[language].values() if isinstance(text, dict)]
    assert plurals
    assert all(text.keys() == PLURALS[language] for text in plurals)


def test_ukrainian_is_ukrainian() -> None:
    same = {key for key, text in TEXTS["uk"].items() if text == TEXTS["en"][key]}
    assert same <= {"market.mt5", "zone.utc", "metric.qlike", "baseline.har", "baseline.ewma"}
    assert not [key for key, text in TEXTS["uk"].items() if re.search("[ыэёъ]", "".join(forms(text)).lower())]


def test_every_text_that_is_asked_for_is_there_and_every_one_there_is_asked_for() -> None:
    asked = set(re.findall(r'(?:\bt\(|data-text=|data-label=|\? |: )"([a-z_]+(?:\.[a-z_0-9]+)*)"', SOURCES))
    asked |= set(re.findall(r'"(chart\.\w+)"', SOURCES))
    groups = set(re.findall(r"`(\w+)\.\$\{", SOURCES)) | {"baseline", "metric"}
    keys = set(TEXTS["en"])
    assert {key for key in re.findall(r'\bt\("([\w.]+)"', SOURCES)} <= keys
    assert {key for key in re.findall(r'data-(?:text|label)="([\w.]+)"', SOURCES)} <= keys
    left_over = {key for key in keys if key not in asked and key.split(".")[0] not in groups}
    assert left_over == set()


def test_every_known_code_has_its_words() -> None:
    assert [
        f"{group}.{code}" for group, codes in CODES.items() for code in codes if f"{group}.{code}" not in TEXTS["en"]
    ] == []


def test_the_page_stands_in_english_before_any_script_has_run() -> None:
    template = (DASHBOARD / "index.html").read_text()
    html = page_html(template, TEXTS["en"], "simulated", "plotly.js", "sheet").decode()
    assert "SIMULATED MARKET</strong>" in html
    assert "This page needs JavaScript." in html
    assert "{{" not in html
    live = page_html(template, TEXTS["en"], "mt5", "plotly.js", "sheet").decode()
    assert 'class="banner"></div>' in live
