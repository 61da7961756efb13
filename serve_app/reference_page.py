"""/docs: the API's description as a page to read and try, drawn by Swagger UI out of a wheel; nothing comes from elsewhere."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request, Response

from serve_app.board import Answer, etag_of
from serve_app.page import ASK_AGAIN, MEDIA_TYPES, ONE_YEAR, StaticFile
from serve_app.problems import Problem
from serve_app.reply import conditional

WHEEL = "fastapi-offline"
REFERENCE = Path(__file__).parent / "reference"


def swagger_folder() -> Path:
    """Where the installed wheel holds Swagger UI, found without importing it."""
    found = find_spec("fastapi_offline")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "static"
        if (path / "swagger-ui-bundle.js").exists():
            return path
    raise FileNotFoundError("Swagger UI is not in the fastapi-offline wheel; run `make install` again.")


def reference_files() -> dict[str, StaticFile]:
    """Name under /docs -> file. Those of the wheel carry its version, so that they can be kept for a year."""
    folder, release = swagger_folder(), version(WHEEL)
    wheel = {
        f"swagger-ui-{release}{path.suffix}": StaticFile(path, ONE_YEAR)
        for path in (folder / "swagger-ui-bundle.js", folder / "swagger-ui.css")
    }
    return wheel | {"reference.js": StaticFile(REFERENCE / "reference.js", ASK_AGAIN)}


def add_reference(app: FastAPI) -> None:
    files = reference_files()
    html = (REFERENCE / "index.html").read_text().replace("{{release}}", version(WHEEL)).encode()
    answer = Answer(html, etag_of(html))

    @app.get("/docs", include_in_schema=False)
    async def reference(request: Request) -> Response:
        return conditional(request, answer, MEDIA_TYPES[".html"], {"Cache-Control": ASK_AGAIN})

    @app.get("/docs/{name}", include_in_schema=False)
    async def reference_file(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise Problem(404, "not-found", "Not found", f"There is no file {name[:60]!r}.", hint="Open /docs instead.")
        return await asyncio.to_thread(file.respond, request)  # the first answer zips 1.5 MB
