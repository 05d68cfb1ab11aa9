"""Inspect at its defaults against a server that is running: prints its samples per second.

Run it with any Python that has `inspect-ai` and `openai`; nothing of the playbook is needed:

    python benchmarks/inspect_side.py URL [--items 1000]

URL is that of an OpenAI-compatible server such as `python tests/openai_stub.py --delay 0.05`; its
usage must hold `total_tokens`, which Inspect insists on. One JSON line comes out: `samples`,
`failed`, `seconds` (the wall time of `inspect_ai.eval`, imports left out), `samples_per_s`,
`cpu_ms_per_sample` and `version`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("url")
    cli.add_argument("--items", type=int, default=1000)
    given = cli.parse_args()
    os.environ |= {"STUB_BASE_URL": given.url, "STUB_API_KEY": "none", "NO_PROXY": "127.0.0.1"}

    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    def task(n: int) -> Task:
        samples = [Sample(input=f"text i{i}", target="positive") for i in range(n)]
        return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=match())

    with tempfile.TemporaryDirectory() as logs:

        def run(n: int) -> int:
            # Defaults in everything but the display, which would write over our one line.
            log = eval(
                task(n), model="openai-api/stub/m", log_dir=logs, display="none",
                fail_on_error=False,
            )[0]  # fmt: skip
            return log.results.completed_samples if log.results else 0

        run(20)  # imports and connections are not what is measured
        wall, cpu = time.perf_counter(), time.process_time()
        done = run(given.items)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    result = {
        "samples": given.items,
        "failed": given.items - done,
        "seconds": round(wall, 2),
        "samples_per_s": round(given.items / wall, 1),
        "cpu_ms_per_sample": round(1000 * cpu / given.items, 2),
        "version": version("inspect-ai"),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
