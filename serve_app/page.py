"""The page and its files, all from this server: our HTML, script and style, and Plotly's script out of its wheel.

Knows nothing about forecasts; the page reads the same API as everybody else.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from serve_app.problems import Problem

DASHBOARD = Path(__file__).parent / "dashboard"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
ONE_YEAR = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
_TEXT = re.compile(r'data-text="([^"]+)"[^>]*>(?=<)')


@dataclass(frozen=True)
class StaticFile:
    """One file in memory, also gzipped. `cache` is its Cache-Control."""

    path: Path
    cache: str

    @cached_property
    def plain(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def zipped(self) -> bytes:
        return gzip.compress(self.plain, 6, mtime=0)

    @cached_property
    def etag(self) -> str:
        return f'"{blake2b(self.plain, digest_size=10).hexdigest()}"'

    def respond(self, request: Request) -> Response:
        headers = {"ETag": self.etag, "Cache-Control": self.cache, "Vary": "Accept-Encoding"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.zipped, 200, headers | {"Content-Encoding": "gzip"}, MEDIA_TYPES[self.path.suffix])
        return Response(self.plain, 200, headers, MEDIA_TYPES[self.path.suffix])


def plotly_script() -> Path:
    """plotly.min.js inside the installed wheel, found without importing plotly."""
    found = find_spec("plotly")
    folders = list(found.submodule_search_locations or []) if found else []
    for folder in folders:
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.exists():
            return path
    raise FileNotFoundError("plotly.min.js is not in the plotly wheel; run `make install` again.")


@cache  # what is zipped once need not be zipped again for another app in this process
def static_files() -> dict[str, StaticFile]:
    """Name under /static -> file. Plotly's name carries its version, so that it can be kept for a year."""
    files = {
        path.name: StaticFile(path, ASK_AGAIN) for path in sorted(DASHBOARD.iterdir()) if path.suffix in MEDIA_TYPES
    }
    files[f"plotly-{version('plotly')}.min.js"] = StaticFile(plotly_script(), ONE_YEAR)
    return files


def map_sheet_id(plotly: bytes) -> str:
    """The id of the style sheet that Plotly's script makes for maps, unless an element has that id already.

    We draw no maps, and our policy forbids sheets made by scripts: the page holds an empty element with this id.
    """
    found = re.search(rb'getElementById\("([0-9a-f]{64})"\)', plotly)
    return found.group(1).decode() if found else "no-map-sheet"


def page_html(template: str, texts: dict[str, Any], market: str, plotly_name: str, map_sheet: str) -> bytes:
    """The page with what must stand there before any script has run: which market this is, and `texts` in English."""
    banner = f"banner.{market}"
    words = (
        f'<strong data-text="{banner}"></strong><span data-text="{banner}.detail"></span>' if banner in texts else ""
    )
    for name, value in {"market": market, "plotly": plotly_name, "map_sheet": map_sheet, "banner": words}.items():
        template = template.replace("{{" + name + "}}", value)
    return _TEXT.sub(lambda found: found[0] + escape(texts[found[1]], quote=False), template).encode()


def add_page(app: FastAPI, market: str) -> None:
    files = static_files()
    plotly_name = next(name for name in files if name.startswith("plotly-"))
    template, texts = files["index.html"].plain.decode(), json.loads(files["en.json"].plain)
    html = page_html(template, texts, market, plotly_name, map_sheet_id(files[plotly_name].plain))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(html, 200, {"Cache-Control": ASK_AGAIN}, MEDIA_TYPES[".html"])

    @app.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None or name == "index.html":
            raise Problem(404, "not-found", "Not found", f"There is no file {name[:60]!r}.", hint="Open / instead.")
        return await asyncio.to_thread(file.respond, request)  # the first answer zips 5 MB
