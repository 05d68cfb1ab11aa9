"""Scores that the Hub shows, on models' pages and in its leaderboard, as published scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from lib.model_info import as_text, valid_id

__all__ = ["BOARD_NOTE", "LEADERBOARD", "PAGE_NOTE", "on_board", "on_pages", "read_board"]

LEADERBOARD = "hf://datasets/OpenEvals/leaderboard-data/data/train-00000-of-00001.parquet"
BOARD_URL = "https://huggingface.co/datasets/OpenEvals/leaderboard-data"
PAGE_NOTE, BOARD_NOTE = "Hub eval results", "OpenEvals leaderboard"
# Shares of right answers. The Hub defines no scale (its examples: 20.90 and 0.412), but a share
# above 1 can only be percent; at or below 1 it can be either, and stays apart from percentages.
SHARES = {
    "Idavidrein/gpqa",
    "SWE-bench/SWE-bench_Verified",
    "TIGER-Lab/MMLU-Pro",
    "cais/hle",
    "openai/gsm8k",
}
NAMES = {
    "Idavidrein/gpqa diamond": "GPQA",
    "Idavidrein/gpqa gpqa_diamond": "GPQA",
    "SWE-bench/SWE-bench_Verified": "SWE-Bench Verified",
    "SWE-bench/SWE-bench_Verified swe_bench_verified": "SWE-Bench Verified",
    "TIGER-Lab/MMLU-Pro": "MMLU-Pro",
    "TIGER-Lab/MMLU-Pro mmlu_pro": "MMLU-Pro",
}
COLUMNS = {
    "gpqa_score": "Idavidrein/gpqa",
    "gsm8k_score": "openai/gsm8k",
    "hle_score": "cais/hle",
    "mmluPro_score": "TIGER-Lab/MMLU-Pro",
    "sweVerified_score": "SWE-bench/SWE-bench_Verified",
}

Row = dict[Any, Any]


def on_pages(evals: pd.DataFrame, models: Iterable[str]) -> list[Row]:
    """The results on the models' own pages, best evidence first: verified, then the latest.

    Args:
        evals: From `hub.pull`: `repo_id benchmark task_id value date verified source_url
            source_name filename`.
        models: The `repo_id`s to take, in any case.

    Returns:
        Rows of `published_scores.csv` without `checked_on`, and with `dataset` and `date`.
        `kind` is `independent` only where the Hub marks the run as verified. `unit` is `percent`
        for a share of right answers above 1, else `as given`; then the benchmark keeps its
        dataset's name. What is no score of a known form is left out.
    """
    known, rows = {repo_id.lower(): repo_id for repo_id in models}, []
    for result in _records(evals):
        repo_id = known.get(str(result["repo_id"]).lower())
        dataset, task = result["benchmark"], str(result["task_id"] or "default")
        if not repo_id or not valid_id(dataset) or not re.fullmatch(r"[\w.-]{1,60}", task):
            continue
        if not (score := _score(result["value"], dataset, task)):
            continue
        file = re.sub(r"[^\w.-]+", "-", PurePosixPath(str(result["filename"] or "")).stem)[:60]
        day = re.match(r"\d{4}-\d\d-\d\d", str(result["date"]))
        name = (as_text(result["source_name"]) or "").replace("../", "")
        said = [PAGE_NOTE, task, name, day and f"run {day[0]}"]
        url = str(result["source_url"])
        rows.append(
            score
            | {
                "repo_id": repo_id,
                "kind": "independent" if result["verified"] is True else "self-reported",
                "verified": {"True": "yes", "False": "no"}.get(str(result["verified"]), ""),
                "variant": " ".join(filter(None, ["Hub", file, task])),
                "note": "; ".join(str(part) for part in said if part),
                "source_url": url
                if re.fullmatch(r"https://[!#-;=?-~]{1,400}", url) and "../" not in url
                else f"https://huggingface.co/{repo_id}",
                "date": day[0] if day else "",
            }
        )
    return sorted(rows, key=lambda row: (row["verified"] == "yes", row["date"]), reverse=True)


def on_board(board: pd.DataFrame, models: Iterable[str]) -> list[Row]:
    """The results in the Hub's leaderboard: a row per model, a column `…_score` per benchmark.

    Args:
        board: From `read_board`; which benchmarks it has is read from its columns, and the mean
            over whatever each model happened to run (`aggregate_score`) is left out.
        models: As in `on_pages`.

    Returns:
        As `on_pages`; `verified` is blank, since the leaderboard does not say.
    """
    known, rows = {repo_id.lower(): repo_id for repo_id in models}, []
    names = [name for name in ("model_name", "model_id") if name in board.columns]
    columns = {
        column: COLUMNS.get(column, f"OpenEvals/{column.removesuffix('_score')}")
        for column in map(str, board.columns)
        if re.fullmatch(r"\w{1,60}_score", column) and column != "aggregate_score"
    }
    for result in _records(board):
        ids = [known.get(str(result[name]).lower()) for name in names]
        repo_id = next(filter(None, ids), None)
        for column, dataset in columns.items():
            if repo_id and (score := _score(result[column], dataset, "default")):
                told = {"kind": "self-reported", "verified": "", "variant": "OpenEvals", "date": ""}
                rows.append(
                    score | told | {"repo_id": repo_id, "note": BOARD_NOTE, "source_url": BOARD_URL}
                )
    return rows


def read_board(path: str) -> tuple[pd.DataFrame | None, str]:
    """The leaderboard, or nothing and the sentence that says so: scores can do without it."""
    remote = path.startswith("hf://")
    try:  # it is public: no token leaves this machine for it, wherever HF_ENDPOINT points
        return pd.read_parquet(path, storage_options={"token": False} if remote else None), ""
    except Exception as error:  # from the network to a damaged file: nothing else is lost by it
        why = type(error).__name__
        return None, f"Leaderboard not read ({why}): its earlier scores are kept. {path}"


def _score(value: object, dataset: str, task: str) -> Row | None:
    """Benchmark, score and unit; nothing where the value is no score."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        return None
    share = dataset in SHARES
    if share and not 0 <= value <= 100:
        return None
    percent = share and value > 1
    label = dataset if task == "default" else f"{dataset} {task}"
    return {
        "dataset": dataset,
        "benchmark": NAMES.get(label, label) if percent else label,
        "score": f"{value:.6g}",
        "unit": "percent" if percent else "as given",
    }


def _records(table: pd.DataFrame) -> list[Row]:
    plain = table.astype(object)
    return plain.where(plain.notna(), None).to_dict("records")
