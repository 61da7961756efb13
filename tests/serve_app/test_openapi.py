"""The description of the API: true to its examples, and docs/openapi.json is what a review sees change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.examples import EXAMPLES, OTHER_EXAMPLES, PROBLEMS
from serve_app.responses import ProblemBody
from tests.serve_app.take_openapi import SNAPSHOT, described


def answers(spec: dict[str, Any], operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By status, with those that are shared in their place."""
    shared = spec["components"]["responses"]
    return {
        status: shared[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        for status, answer in operation["responses"].items()
    }


def skeleton(spec: dict[str, Any]) -> dict[str, Any]:
    """What a program depends on: operations with their parameters, answers and media types; shapes with their fields."""
    operations = {
        f"{method.upper()} {path}": {
            "id": operation["operationId"],
            "parameters": {
                f"{p['in']} {p['name']}": (p["required"], p["schema"]["type"]) for p in operation.get("parameters", [])
            },
            "answers": {status: sorted(a.get("content", {})) for status, a in answers(spec, operation).items()},
            "headers": sorted(operation["responses"]["200"].get("headers", {})),
        }
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    }
    shapes = {
        name: {
            field: (field in shape.get("required", []), kind(schema)) for field, schema in shape["properties"].items()
        }
        for name, shape in spec["components"]["schemas"].items()
    }
    return {"operations": operations, "shapes": shapes}


def kind(schema: dict[str, Any]) -> Any:
    branches = [kind(branch) for branch in schema.get("anyOf", ())]
    inner = [kind(schema[name]) for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return [schema.get("type"), schema.get("$ref"), schema.get("enum"), schema.get("const"), branches, inner]


def test_the_description_in_docs_is_what_is_served(tmp_path: Path) -> None:
    kept, served = skeleton(json.loads(SNAPSHOT.read_text())), skeleton(described(tmp_path))
    served = json.loads(json.dumps(served))
    assert json.loads(json.dumps(kept)) == served, "What changed, on purpose: python -m tests.serve_app.take_openapi"


def test_the_check_sees_a_lost_field_and_a_new_answer() -> None:
    kept = json.loads(SNAPSHOT.read_text())
    changed = json.loads(SNAPSHOT.read_text())
    del changed["components"]["schemas"]["ForecastBody"]["properties"]["stale"]
    assert skeleton(kept) != skeleton(changed)
    changed = json.loads(SNAPSHOT.read_text())
    changed["paths"]["/api/v1/skill"]["get"]["responses"]["418"] = {}
    assert skeleton(kept) != skeleton(changed)
    changed = json.loads(SNAPSHOT.read_text())
    changed["info"]["description"] = "reworded"
    assert skeleton(kept) == skeleton(changed)


def test_both_addresses_say_the_same(desk: Any) -> None:
    first, second = (desk.client.get(path) for path in ("/openapi.json", "/api/v1/openapi.json"))
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


def test_every_answer_and_problem_has_an_example(tmp_path: Path) -> None:
    spec = described(tmp_path)
    ids = [operation["operationId"] for methods in spec["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    assert spec["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, methods in spec["paths"].items():
        for method in methods.values():
            assert ("security" in method) == path.startswith("/api/"), path
            for status, answer in answers(spec, method).items():
                assert all(media.keys() & {"example", "examples"} for media in answer.get("content", {}).values()), (
                    path,
                    status,
                )
                if (status.isdigit() and int(status) >= 400) or status == "default":
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)
            if path.startswith("/api/"):
                assert {"401", "403", "429", "503", "default"} <= method["responses"].keys(), path


@pytest.mark.parametrize(("shape", "example"), EXAMPLES.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_the_examples_are_true_to_the_shapes(shape: Any, example: dict[str, Any]) -> None:
    for one in (example, *OTHER_EXAMPLES.get(shape, {}).values()):
        shape.model_validate(json.loads(json.dumps(one)))


def test_an_example_keeps_what_is_null(tmp_path: Path) -> None:
    answer = described(tmp_path)["paths"]["/api/v1/predictions/{symbol}"]["get"]["responses"]["200"]
    examples = answer["content"]["application/json"]["examples"]
    assert examples["usual"]["value"]["next_open"] is None
    assert examples["on_demand"]["value"]["skill"][0]["live_value"] is None


def test_the_problems_are_true_to_their_shape(tmp_path: Path) -> None:
    spec = described(tmp_path)
    shown = {
        status: content["example"]
        for methods in spec["paths"].values()
        for status, answer in answers(spec, methods["get"]).items()
        for name, content in answer.get("content", {}).items()
        if "problem" in name
    }
    assert shown.keys() == {*map(str, PROBLEMS), "default"}
    for example in shown.values():
        ProblemBody.model_validate(example)
