"""CPUs of the head that training shall not have, claimed until SIGTERM, so that only its workers compute.

python -m benchmarks.claimed_cpus --address HEAD:6379 --cpus 1.5
"""

from __future__ import annotations

import argparse
import signal


class Claim:
    """It only is there."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claimed_cpus", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--cpus", type=float, required=True)
    given = parser.parse_args(argv)
    import ray

    signal.signal(signal.SIGTERM, lambda *_: exit(0))
    ray.init(address=given.address, namespace="lstmc", log_to_driver=False, logging_level="ERROR")
    claim = ray.remote(Claim).options(num_cpus=given.cpus, label_selector={"role": "head"}).remote()
    ray.get(claim.__ray_ready__.remote(), timeout=60)
    print("claimed", flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
