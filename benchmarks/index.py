"""Searching an index of the whole Hub, DuckDB against pandas: `python benchmarks/index.py`.

The index is made up, with the columns and the skew of the public one; it is kept in the
temporary folder. Each measurement is a fresh process; the memory is its peak resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, GROUP, PROFILES, THREADS = 2_200_000, 122_880, 120_000, 2
TASKS = {
    None: 50, "text-generation": 14, "text-classification": 6, "text-to-image": 6,
    "image-text-to-text": 2, "automatic-speech-recognition": 3, "sentence-similarity": 3,
    "reinforcement-learning": 4, "token-classification": 2, "image-classification": 2,
}  # fmt: skip
LICENSES = {
    None: 55, "apache-2.0": 24, "mit": 9, "other": 4, "openrail": 2, "llama3.1": 1.5, "gemma": 1.5,
    "cc-by-nc-4.0": 1.5, "llama3.2": 1, "llama2": 0.5, "bsd-3-clause": 0.3,
}  # fmt: skip
NAMES = {None: 50, "qwen": 10, "modified-mit": 5, "nvidia-open-model-license": 10, "lfm1.0": 3}
RELATIONS = {None: 45, "finetune": 20, "adapter": 18, "quantized": 15, "merge": 2}
SIZES = [0.1, 0.135, 0.3, 0.6, 1.1, 1.5, 3.2, 4, 7.2, 8, 9, 12, 14, 27, 32.5, 70, 72, 123, 235, 671]
USUAL = """transformers safetensors pytorch tensorboard conversational en zh fr endpoints_compatible
    text-generation-inference autotrain_compatible trl sft lora unsloth deploy:azure""".split()
Row = dict[str, Any]


def _draw(chance: random.Random, weights: Mapping[Any, float]) -> Any:
    return chance.choices(list(weights), list(weights.values()))[0]


def _profile(chance: random.Random) -> Row:
    """Everything of a repository but its name and its popularity."""
    task, license_, relation = (_draw(chance, w) for w in (TASKS, LICENSES, RELATIONS))
    name = _draw(chance, NAMES) if license_ == "other" else None
    base = f"owner{chance.randrange(3000)}/base-{chance.randrange(9000)}"
    count = int(1e9 * chance.choice(SIZES) * chance.uniform(0.95, 1.05))
    gguf = relation == "quantized" and chance.random() < 0.7
    safe = {"total": count, "parameters": {"BF16": count}} if chance.random() < 0.5 else None
    card = {"license": license_, "license_name": name, "language": ["en"], "tags": ["x"] * 4}
    card["description"] = chance.randbytes(100).hex()
    config = {"architectures": [f"Arch{chance.randrange(300)}"], "model_type": "x"}
    tags = [
        task,
        license_ and f"license:{license_}",
        "region:us",
        *chance.sample(USUAL, chance.randint(0, 8)),
    ]
    if relation:
        tags += [f"base_model:{base}", f"base_model:{relation}:{base}"]
    return {
        "pipeline_tag": task,
        "library_name": "gguf" if gguf else chance.choice(["transformers", "peft", None]),
        "gated": chance.choices(["False", "auto", "manual"], [96, 3, 1])[0],
        "tags": [tag for tag in tags if tag],
        "safetensors": None if gguf else safe,
        "baseModels": {"relation": relation, "models": [{"id": base}]} if relation else None,
        "gguf": {"total": count, "architecture": "x", "context_length": 8192} if gguf else None,
        "cardData": json.dumps({key: value for key, value in card.items() if value}),
        "config": json.dumps(config),
    }


def generate(path: Path, rows: int = ROWS, *, seed: int = 7) -> Path:
    """Write an index of so many repositories, a hundred thousand at a time."""
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    pool = pa.Table.from_pylist([_profile(chance) for _ in range(PROFILES)]).combine_chunks()
    path.parent.mkdir(parents=True, exist_ok=True)
    part, writer = path.with_suffix(f".{os.getpid()}"), None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        table = pool.take(numbers.integers(0, PROFILES, n))
        owners = numbers.zipf(1.3, n) % 200_000
        ids = [f"owner{owner}/model-{start + i}" for i, owner in enumerate(owners)]
        downloads = (numbers.pareto(0.6, n) * 2).clip(0, 2e8).astype("int64")
        days = numbers.integers(0, 1500, n).astype("timedelta64[D]")
        popular: Row = {
            "id": ids,
            "author": [name.partition("/")[0] for name in ids],
            "downloads": downloads,
            "downloadsAllTime": downloads * 9,
            "likes": (downloads / 900 + numbers.pareto(1.5, n)).astype("int64"),
            "trendingScore": (numbers.pareto(1.2, n)).astype("int64"),
            "createdAt": np.datetime64("2026-11-20", "ms") - days,
            "lastModified": np.datetime64("2026-11-20", "ms") - days // 2,
        }
        for place, (name, values) in enumerate(popular.items()):
            table = table.add_column(place, name, pa.array(values))
        writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=GROUP)
    if writer:
        writer.close()
    return part.replace(path)


def wanted(min_downloads: int) -> Any:
    """What a brief asks for that takes only Apache-2.0 or MIT, in the low tier."""
    from lib import hub_filters, tables
    from lib.project import Project

    brief = Project.model_validate(
        {
            "name": "bench",
            "task": "bench",
            "policy": {"licenses": ["apache-2.0", "mit"]},
            "size": {"tier": "low"},
            "candidates": {"source": "hub", "via": "index", "min_downloads": min_downloads},
            "evaluation": {"kind": "exact", "items": "-"},
            "deployments": [
                {"name": "d", "model": "a/b", "endpoint": {"base_url": "http://localhost"},
                 "hardware": "cpu-1"}
            ],
        }
    )  # fmt: skip
    given = tables.models(), tables.licenses(), tables.closed_models()
    return hub_filters.filters(brief, *given)


def by_duckdb(path: Path, asked: Any) -> list[str]:
    """The repositories found by the code that step 1 uses."""
    from lib import hub_index

    found = hub_index.search(str(path), asked, threads=THREADS)
    return [one.repo_id for one in found.repos]


def by_pandas(path: Path, asked: Any) -> list[str]:
    """The same with `pandas.read_parquet`: its filters first, the rest in memory."""
    import pandas as pd

    pa.set_cpu_count(THREADS)
    columns = ["id", "downloads", "pipeline_tag", "tags", "safetensors", "gguf", "baseModels"]
    filters = [("pipeline_tag", "in", asked.tasks), ("downloads", ">=", asked.min_downloads)]
    table = pd.read_parquet(path, columns=columns, filters=filters)
    licensed = ~table["tags"].map(set(asked.tags).isdisjoint).astype(bool)
    params = table["safetensors"].map(lambda safe: safe["total"], na_action="ignore").astype(float)
    fits = pd.Series(False, index=table.index)
    for low, high in asked.sizes:
        fits |= params.between(low * 1e9, high * 1e9)
    relation = table["baseModels"].map(lambda base: base["relation"], na_action="ignore")
    hits = table[licensed & fits & ~relation.isin(["quantized", "adapter"])]
    order = hits.sort_values(["downloads", "id"], ascending=[False, True])
    return list(order["id"].head(asked.limit))


WAYS = {"duckdb": by_duckdb, "pandas": by_pandas}


def child(way: str, path: Path, min_downloads: int) -> None:
    """One search in a process of its own: seconds, and the peak of its resident memory."""
    import pandas  # noqa: F401

    from lib import hub_index  # noqa: F401

    asked = wanted(min_downloads)
    start = time.perf_counter()
    found = WAYS[way](path, asked)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")
    # Not getrusage: its peak goes on from the parent's.
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "mib": int(peak_kb) / 1024, "found": found}))


def stored(rows: int) -> Path:
    return Path(tempfile.gettempdir()) / "playbook-index" / f"models-{rows}.parquet"


def measure(rows: int = ROWS, *, min_downloads: int = 0, repeat: int = 5) -> dict[str, float]:
    """Search a made-up index both ways, in turn.

    Returns:
        `duckdb_s pandas_s` (medians), `duckdb_mib pandas_mib` (greatest peaks), `ratio` (how many
        times as fast DuckDB is), `found` and `index_mb`.

    Raises:
        RuntimeError: The two ways do not find the same repositories.
    """
    if not stored(rows).exists():
        generate(stored(rows), rows)
    told: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    options = ["--rows", str(rows), "--min-downloads", str(min_downloads)]
    for _ in range(repeat):
        for way, results in told.items():
            command = [sys.executable, __file__, "--child", way, *options]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(ran.stdout))
    if len({tuple(result["found"]) for results in told.values() for result in results}) != 1:
        raise RuntimeError("DuckDB and pandas do not find the same repositories")
    numbers: dict[str, float] = {"index_mb": stored(rows).stat().st_size / 1e6}
    for way, results in told.items():
        numbers[f"{way}_s"] = statistics.median(result["seconds"] for result in results)
        numbers[f"{way}_mib"] = max(result["mib"] for result in results)
    numbers["ratio"] = numbers["pandas_s"] / numbers["duckdb_s"]
    return numbers | {"found": len(told["duckdb"][0]["found"])}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("--rows", type=int, default=ROWS)
    cli.add_argument("--min-downloads", type=int, default=0, help="0: the whole Hub")
    cli.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    given = cli.parse_args()
    if given.child:
        return child(given.child, stored(given.rows), given.min_downloads)
    told = measure(given.rows, min_downloads=given.min_downloads)
    print(f"{given.rows:,} repositories, {told['index_mb']:.0f} MB; {told['found']:.0f} found")
    for way in WAYS:
        print(f"{way}: {told[f'{way}_s']:.2f} s, {told[f'{way}_mib']:.0f} MiB at most")
    print(f"DuckDB is {told['ratio']:.1f} times as fast (targets: under 1 s, 500 MB, 4 times)")


if __name__ == "__main__":
    main()
