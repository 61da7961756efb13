"""Writes kubernetes_schemas.json.xz: KubeRay's CRDs and the core kinds that our manifests use, without descriptions.

    python -m tests.cluster.make_kubernetes_schemas KUBERAY_CHECKOUT

wants a checkout of ray-project/kuberay and the package kubernetes-validate, whose schemas refuse unknown keys. Run by hand
when either moves on; tests read the file only.
"""

from __future__ import annotations

import json
import lzma
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).parent / "kubernetes_schemas.json.xz"
CORE = "v1.34.0-local-strict"
KINDS = {"v1/PersistentVolumeClaim": "persistentvolumeclaim-v1", "v1/Service": "service-v1",
         "batch/v1/CronJob": "cronjob-batch-v1", "networking.k8s.io/v1/NetworkPolicy": "networkpolicy-networking-v1"}  # fmt: skip


def bare(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: bare(v) for k, v in node.items() if not (k == "description" and isinstance(v, str))}
    return [bare(part) for part in node] if isinstance(node, list) else node


def ray_kinds(checkout: Path) -> dict[str, Any]:
    found = {}
    for name in ("rayclusters", "rayjobs"):
        crd = yaml.load(
            (checkout / f"helm-chart/kuberay-operator/crds/ray.io_{name}.yaml").read_text(), yaml.CSafeLoader
        )
        version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
        schema = closed(bare(version["schema"]["openAPIV3Schema"]))
        schema["properties"]["metadata"] = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
        found[f"ray.io/v1/{crd['spec']['names']['kind']}"] = schema
    return found


def closed(node: Any) -> Any:
    """A CRD drops what it does not know, without a word; a check must not. Both of its own types for one value stay."""
    if isinstance(node, list):
        return [closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {key: closed(value) for key, value in node.items()}
    if (
        isinstance(node.get("properties"), dict)
        and "additionalProperties" not in node
        and "x-kubernetes-preserve-unknown-fields" not in node
    ):
        node["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        node = {"type": ["integer", "string"]}
    return node


def core_kinds() -> tuple[dict[str, Any], dict[str, Any]]:
    """Schemas by kind, and the definitions that they lead to."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / CORE
    every = json.loads((folder / "_definitions.json").read_text())["$defs"]
    kinds = {kind: local(json.loads((folder / f"{file}.json").read_text())) for kind, file in KINDS.items()}
    needed: dict[str, Any] = {}
    waiting = [*names(kinds), "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = bare(local(every[name]))
            waiting += names(needed[name])
    return bare(kinds), needed


def local(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: f"#/definitions/{v.rsplit('/', 1)[1]}" if k == "$ref" else local(v) for k, v in node.items()}
    return [local(part) for part in node] if isinstance(node, list) else node


def names(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].rsplit("/", 1)[1]] if isinstance(node.get("$ref"), str) else []
        return own + [name for value in node.values() for name in names(value)]
    return [name for part in node for name in names(part)] if isinstance(node, list) else []


if __name__ == "__main__":
    kinds, definitions = core_kinds()
    schemas = {"definitions": definitions, "kinds": kinds | ray_kinds(Path(sys.argv[1]))}
    OUT.write_bytes(lzma.compress(json.dumps(schemas, sort_keys=True).encode(), preset=9))
    print(OUT, OUT.stat().st_size, *schemas["kinds"])
