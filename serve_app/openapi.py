"""What /openapi.json says beyond what FastAPI finds out by itself: problems, headers, forms, and what is served here."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from configs.settings import Settings
from serve_app import problems
from serve_app.board import Answer, etag_of
from serve_app.examples import CSV, EXAMPLES, OTHER_EXAMPLES, PROBLEMS, problem_example
from serve_app.reply import JSON, conditional
from serve_app.representation import Representation
from serve_app.responses import ProblemBody

ADDRESSES = ("/openapi.json", "/api/v1/openapi.json")
READ = (401, 403, 429, 503)
OF_A_TIMEFRAME = (*READ, 422)
OF_A_SYMBOL = (*OF_A_TIMEFRAME, 404)
_TEXT = {"type": "string"}
HEADERS = {
    "X-Request-Id": {"description": "yours, if you sent one", "required": True, "schema": _TEXT},
    "ETag": {"description": "for If-None-Match", "required": True, "schema": _TEXT},
    "Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}},
    "Link": {"description": 'the next page, rel="next", where there is one', "schema": _TEXT},
} | {
    f"RateLimit-{name}": {"description": what, "required": True, "schema": {"type": "integer", "minimum": 0}}
    for name, what in (
        ("Limit", "requests a minute"),
        ("Remaining", "what is left of them"),
        ("Reset", "seconds until the oldest request leaves the minute"),
    )
}
BUDGET = tuple(name for name in HEADERS if name.startswith("RateLimit"))


def documented(
    model: type[BaseModel], *statuses: int, tagged: bool = True, paged: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its answer with headers (`description` adds the example), and the problems it can meet."""
    budget = BUDGET if 401 in statuses else ()
    content: dict[str, Any] = {JSON: {}}
    if 406 in statuses:
        content |= {
            Representation.ARROW.value: {"schema": {"type": "string", "format": "binary"}, "example": "an IPC stream"},
            Representation.CSV.value: {"schema": {"type": "string"}, "example": CSV[model]},
        }
    sent = ("X-Request-Id", *budget, *(["ETag"] if tagged else []), *(["Link"] if paged else []))
    described: dict[int | str, dict[str, Any]] = {200: {"model": model, "content": content, "headers": _headers(*sent)}}
    if tagged:
        described[304] = {"description": "You have it already.", "headers": _headers("ETag", *budget)}
    return described | refused(*statuses)


def refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route can meet, and the shape of any other."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, *statuses}):
        more = ("Retry-After",) if status in (429, 503) else ()
        described[status] = _problem(PROBLEMS[status][1], problem_example(status), *more)
    described["default"] = _problem("Any other problem", problem_example(400))
    return described


def _problem(description: str, example: dict[str, Any], *headers: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    content = {problems.MEDIA_TYPE: {"schema": schema, "example": example}}
    return {"description": description, "headers": _headers("X-Request-Id", *headers), "content": content}


def _headers(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def add_openapi(app: FastAPI, settings: Settings) -> None:
    """Serve the description, rendered at the first question."""

    @cache
    def rendered() -> Answer:
        body = orjson.dumps(description(app, settings))
        return Answer(body, etag_of(body))

    async def openapi(request: Request) -> Response:
        answer = await asyncio.to_thread(rendered)  # the first one takes 0.1 s
        return conditional(request, answer, JSON, {"Cache-Control": "no-cache"})

    for address in ADDRESSES:
        app.add_api_route(address, openapi, include_in_schema=False)


def _shown(model: type[BaseModel]) -> dict[str, Any]:
    if model not in OTHER_EXAMPLES:
        return {"example": EXAMPLES[model]}
    named = {"usual": EXAMPLES[model]} | OTHER_EXAMPLES[model]
    return {"examples": {name: {"value": example} for name, example in named.items()}}


def description(app: FastAPI, settings: Settings) -> dict[str, Any]:
    said = app.openapi()
    shown = {f"#/components/schemas/{model.__name__}": _shown(model) for model in EXAMPLES}
    said["components"]["schemas"]["ProblemBody"] = ProblemBody.model_json_schema()
    said["components"]["headers"] = HEADERS
    shared = said["components"].setdefault("responses", {})
    served = {"symbol": settings.symbols, "timeframe": settings.timeframes}
    for operation in (operation for operations in said["paths"].values() for operation in operations.values()):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            if values := served.get(parameter["name"]):
                schema |= {"enum": list(values)}
            # An address has no null: what is optional is left out.
            schema |= next((branch for branch in schema.pop("anyOf", ()) if branch["type"] != "null"), {})
        for status, answer in operation["responses"].items():
            if body := answer.get("content", {}).get(JSON):
                body |= shown[body["schema"]["$ref"]]  # only now: FastAPI leaves out what is null
            if problems.MEDIA_TYPE in answer.get("content", {}):  # the same wherever it is met
                name = f"Problem{status.capitalize()}"
                shared[name] = answer
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return said
