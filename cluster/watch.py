"""`lstmc up --watch`: a Prometheus with our rules beside the cluster, and a Grafana with our boards where there is one.

Both listen on loopback and carry the run's mark, so that `lstmc down` ends them with everything else. The cluster needs
neither: a program that is absent or does not start is said, and the cluster goes on.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster import health, nodes
from cluster.progress import Progress
from cluster.ray_boards import write_boards
from cluster.run_record import NODE_VARIABLE, RUN_VARIABLE, Run, write_run
from configs.settings import ROOT, Settings
from market.errors import ClusterError

DEPLOY = ROOT / "cluster" / "deploy"
START_SECONDS = 60.0  # Grafana makes its database at the first start


class Program(NamedTuple):
    """`port`: the usual one; `ready`: the path that answers 200 once it works; `install`: where it comes from."""

    port: int
    ready: str
    install: str


PROGRAMS = {
    "prometheus": Program(9090, "/-/ready", "Debian and Ubuntu: `apt-get install prometheus`."),
    "grafana-server": Program(3000, "/api/health", "Grafana's own package brings it, on Debian in /usr/sbin."),
}


def watch(settings: Settings, run: Run, progress: Progress) -> Run:
    """Start what does not run yet, Prometheus first, without which Grafana has nothing to show; the record with what runs."""
    for name, program in PROGRAMS.items():
        if run.alive(name):
            continue
        path = shutil.which(name)
        if path is None:
            progress.say(f"the cluster goes on without {name}, which is not on the PATH. {program.install}")
            break
        progress.doing(f"starting {name}")
        try:
            run = _start(settings, run, name, path)
        except (ClusterError, OSError) as error:
            progress.say(f"the cluster goes on without {name}: {error}")
            break
        progress.say(f"{name} watches at {health.watchers(run)[name]}")
    return run


def _start(settings: Settings, run: Run, name: str, path: str) -> Run:
    port = run.ports.get(name, PROGRAMS[name].port)
    if nodes.listens(port):
        port = nodes.free_ports(1, run.ports.values())[0]
    folder, log = settings.home_path / "watch", settings.home_path / "logs" / f"{name}.log"
    words, environment = (
        (_prometheus(folder, Path(run.temp_dir), port), {})
        if name == "prometheus"
        else (["--homepath=/usr/share/grafana"], _grafana(folder / "grafana", run.ports["prometheus"], port))
    )
    # Nothing of ours is inherited: neither secrets nor a proxy, which would be asked for the nodes' pages.
    environment |= {"PATH": "/usr/bin:/bin", RUN_VARIABLE: run.run_id, NODE_VARIABLE: name}
    started = nodes.spawn([path, *words], environment, log)
    run = replace(run, ports=run.ports | {name: port}).with_process(name, started)
    ready = f"http://127.0.0.1:{port}{PROGRAMS[name].ready}"
    try:
        nodes.wait(lambda: health.http_get(ready)[0] == 200, started, log, "It did not start", START_SECONDS)
    except BaseException:  # Ctrl-C, too: what is not on record must not go on
        nodes.stop_node(run, name)
        raise
    write_run(settings.home_path, run)
    return run


def _prometheus(folder: Path, session: Path, port: int) -> list[str]:
    """Its arguments; its configuration is the deployment's, with this machine's paths."""
    shipped = DEPLOY / "prometheus" / "prometheus.yaml"
    config = yaml.safe_load(shipped.read_text())
    config["rule_files"] = [str(shipped.with_name("rules.yaml"))]
    discovery = config["scrape_configs"][0]["file_sd_configs"][0]
    discovery["files"] = [str(session / Path(file).name) for file in discovery["files"]]
    return [
        f"--config.file={_write(folder / 'prometheus.yaml', config)}", f"--storage.tsdb.path={folder / 'series'}",
        "--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=1GB", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip


def _grafana(folder: Path, prometheus: int, port: int) -> dict[str, str]:
    """Its environment; its data source and boards are the deployment's, with this machine's paths."""
    shipped = DEPLOY / "grafana"
    source, boards = (
        yaml.safe_load((shipped / "provisioning" / file).read_text())
        for file in ("datasources/prometheus.yaml", "dashboards/boards.yaml")
    )
    source["datasources"][0]["url"] = f"http://127.0.0.1:{prometheus}"
    places = {"lstmc": shipped / "boards", "ray": folder / "boards"}
    for provider in boards["providers"]:
        provider["options"]["path"] = str(places[provider["name"]])
    write_boards(places["ray"])
    _write(folder / "provisioning" / "datasources" / "prometheus.yaml", source)
    _write(folder / "provisioning" / "dashboards" / "boards.yaml", boards)
    return {
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_PATHS_DATA": str(folder / "data"),
        "GF_PATHS_PLUGINS": str(folder / "data" / "plugins"),
        "GF_LOG_MODE": "console",
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # whoever is on this machine may look; nobody may log in
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    }


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path
