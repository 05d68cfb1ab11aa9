"""A run against its record: whatever was changed is found, and named."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lib import __main__ as cli
from lib import artifacts, decide, pipeline, tables, verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "article"
    return pipeline.run(str(planned(run)), run_dir=str(run), progress=False)


def planned(run: Path) -> Path:
    """The article's brief, beside its run, with everything that the record may have."""
    text = (tables.DATA / "projects/article/project.yaml").read_text("utf-8")
    assert "  tier: any" in text
    path = run.parent / "project.yaml"
    text = text.replace("  tier: any", "  fine_tuning: planned\n  tier: medium")
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed_cell(table: pd.DataFrame, chance: random.Random) -> pd.DataFrame:
    """The table with another value in one cell."""
    row, column = chance.randrange(len(table)), chance.choice(list(table.columns))
    old = table[column].iloc[row]
    new = [old + 1 if isinstance(old, int | float) and not isinstance(old, bool) else f"{old}x"]
    values = [*table[column][:row], *new, *table[column][row + 1 :]]
    return table.assign(**{column: pd.Series(values, index=table.index, dtype=object)})


def rehash(run: Path, names: list[str]) -> None:
    """What an attacker does: the hashes of record and manifest follow the files."""
    manifest, record = (
        json.loads((run / name).read_text("utf-8"))
        for name in ("manifest.json", "06_decision.json")
    )
    for name in names:
        for hashes in (record["inputs"], record["outputs"]):
            hashes |= {name: sha256(run / name)} if name in hashes else {}
        manifest["files"][name]["sha256"] = sha256(run / name)
        for made_from in manifest["steps"].values():
            made_from |= {name: sha256(run / name)} if name in made_from else {}
    for entry in manifest["files"].values():
        for name in names:
            entry["made_from"] |= {name: sha256(run / name)} if name in entry["made_from"] else {}
    write(run / "manifest.json", manifest)
    record["manifest"] = artifacts.manifest_digest(run)
    (run / "06_decision.json").write_text(
        json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False), "utf-8"
    )
    manifest["files"]["06_decision.json"]["sha256"] = sha256(run / "06_decision.json")
    write(run / "manifest.json", manifest)


def write(path: Path, manifest: Any) -> None:
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True), "utf-8")


def test_a_run_that_nobody_touched(finished: Path) -> None:
    expected = {"record": sha256(finished / "06_decision.json")}
    brief = sha256(finished.parent / "project.yaml")
    assert verify.verify(finished, **expected, brief=brief)[0] == verify.OK


def test_every_changed_byte_is_found_and_its_file_named(run: Path) -> None:
    chance = random.Random(1)
    covered = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".ipynb"]
    covered = [p for p in covered if p.stat().st_size and p.parent.name not in ("logs", "previous")]
    covered = [path for path in covered if not path.name.endswith(".lock")]
    kinds = {path.suffix for path in covered}
    assert {".parquet", ".json", ".html", ".svg", ".png"} <= kinds
    for _ in range(1000):
        path = chance.choice(
            [p for p in covered if p.suffix == chance.choice(sorted(kinds))] or covered
        )
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        other = bytes([whole[at] ^ (1 << chance.randrange(8))])
        path.write_bytes(whole[:at] + other + whole[at + 1 :])
        status, findings = verify.verify(run)
        path.write_bytes(whole)
        assert status in (verify.CHANGED, verify.INCOMPARABLE), path
        assert path.name in " ".join(findings) or path.name == "manifest.json", (path, findings)
    assert verify.verify(run)[0] == verify.OK


@pytest.mark.parametrize(
    "name",
    "figures/quality2.png 00_summary.html 06_copy.ipynb 04_more.parquet exports/new/prices.csv"
    " report.md 06_decision.json.html".split(),
)
def test_a_file_that_the_record_does_not_have(run: Path, name: str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("x")
    assert verify.verify(run) == (verify.CHANGED, [f"{name} is not in the record"])


def test_logs_locks_checkpoints_and_a_signature_are_no_results(run: Path) -> None:
    for name in ("logs/a.log", ".x.lock", "06_decision.json.sig", "previous/report.html",
                 ".ipynb_checkpoints/01.ipynb", "04_inspect/a.json"):  # fmt: skip
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("x")
    assert verify.verify(run)[0] == verify.OK


@pytest.mark.parametrize(
    ("way", "seal"),
    [*product(["absolute", "upward", "link", "linked folder"], ["outputs", "inputs"]),
     ("the root", "outputs")],
)  # fmt: skip
def test_nothing_outside_the_run_is_read(
    run: Path, way: str, seal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the record names it with its true hash."""
    outside = run.parent / "outside" / "secret.parquet"
    outside.parent.mkdir()
    outside.write_text("secret")
    name = {"absolute": str(outside), "upward": f"../{'/'.join(outside.parts[-2:])}",
            "the root": "../../../../..", "link": "new.parquet",
            "linked folder": "new/secret.parquet"}[way]  # fmt: skip
    if way == "link":
        (run / "new.parquet").symlink_to(outside)
    if way == "linked folder":
        (run / "new").symlink_to(outside.parent)
    record = json.loads((run / "06_decision.json").read_text("utf-8"))
    record[seal][name] = sha256(outside)
    (run / "06_decision.json").write_text(json.dumps(record), "utf-8")
    rehash(run, [])
    hashed, plain = list[Path](), artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda path: hashed.append(path) or plain(path))
    status, findings = verify.verify(run)
    inside = run.resolve()
    assert all(path.resolve().is_relative_to(inside) for path in hashed), hashed
    assert status == verify.CHANGED
    assert f"{name} is missing in this run, or a link" in findings


@pytest.mark.parametrize("name", ["06_decision.json", "manifest.json", "report.html"])
def test_a_file_that_became_a_link(run: Path, name: str) -> None:
    (run / name).rename(run.parent / "elsewhere")
    (run / name).symlink_to(run.parent / "elsewhere")
    status, findings = verify.verify(run)
    assert status in (verify.CHANGED, verify.INCOMPARABLE) and name in " ".join(findings)


@pytest.mark.parametrize("table", ["04_scores", "05_capacity", "02_shortlist", "06_tradeoffs"])
def test_a_changed_cell_is_found_also_where_all_hashes_follow(run: Path, table: str) -> None:
    chance, expected = random.Random(table), sha256(run / "06_decision.json")
    path = run / f"{table}.parquet"
    whole = {
        name: (run / name).read_bytes() for name in (path.name, "06_decision.json", "manifest.json")
    }
    frame = pd.read_parquet(path)
    for _ in range(12):
        changed_cell(frame, chance).astype("string").to_parquet(path, index=False)
        assert verify.verify(run)[0] == verify.CHANGED
        rehash(run, [path.name])
        status, findings = verify.verify(run, record=expected)
        assert (status, findings[0]) == (10, "06_decision.json is not the record expected")
        for name, content in whole.items():
            (run / name).write_bytes(content)


def test_a_better_score_with_all_hashes_is_found_by_the_replay(run: Path) -> None:
    scores = pd.read_parquet(run / "04_scores.parquet")
    scores["value"] = scores["value"] + 0.001
    scores.to_parquet(run / "04_scores.parquet", index=False)
    rehash(run, ["04_scores.parquet"])
    status, findings = verify.verify(run)
    assert status == verify.DIFFERS
    assert "06_tradeoffs.parquet: quality comes out differently" in findings


def test_another_pick_in_the_record_is_found_by_the_replay(run: Path) -> None:
    record = json.loads((run / "06_decision.json").read_text("utf-8"))
    record["pick"] |= {"deployment": "deepseek-v3.2-8xgb200"}
    (run / "06_decision.json").write_text(json.dumps(record), "utf-8")
    rehash(run, [])
    assert verify.verify(run)[0] == verify.DIFFERS


def test_whatever_step_6_says_is_found_by_the_replay_where_all_hashes_follow(run: Path) -> None:
    """No verifier's hash is needed for what the tables decide: each column, each key."""
    whole = {path: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    frame, chance = pd.read_parquet(run / "06_tradeoffs.parquet"), random.Random(2)
    for column in [*chance.sample([*frame.columns], 4), "pick", "usd_per_month"]:
        old = frame[column].iloc[0]
        new = not old if isinstance(old, bool) else f"{old}x"
        new = (0.0 if old != old else old) + 1 if column.startswith("usd") else new
        values = pd.Series([new, *frame[column][1:]], dtype=object)
        frame.assign(**{column: values}).astype({column: "string"}).to_parquet(
            run / "06_tradeoffs.parquet", index=False
        )
        rehash(run, ["06_tradeoffs.parquet"])
        finding = f"06_tradeoffs.parquet: {column} comes out differently"
        assert verify.verify(run) == (verify.DIFFERS, [finding])
        for path, content in whole.items():
            path.write_bytes(content)
    record = json.loads((run / "06_decision.json").read_text("utf-8"))
    lies = {"runner_up": None, "tie_rule": "x", "rejected": [], "weights": {"a": "0" * 64}}
    assert record["fine_tuning"]["candidates"]
    lies["fine_tuning"] = None
    for key, lie in (lies | {"prices": [], "serving": "rm", "unverified": []}).items():
        (run / "06_decision.json").write_text(json.dumps(record | {key: lie}), "utf-8")
        rehash(run, [])
        finding = f"06_decision.json: {key} comes out differently"
        assert verify.verify(run) == (verify.DIFFERS, [finding])


def test_the_bill_of_materials_of_a_run_is_valid_and_sealed(finished: Path) -> None:
    text = (finished / decide.BOM).read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    assert decide.BOM in verify.read(finished)["outputs"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"record_version": 99}'])
def test_no_record_cannot_be_compared(run: Path, content: str) -> None:
    (run / "06_decision.json").write_text(content)
    status, (sentence,) = verify.verify(run)
    assert status == verify.INCOMPARABLE
    assert (
        "06_decision.json is missing or no JSON" in sentence or "no record of version 1" in sentence
    )


@pytest.mark.parametrize("content", [None, "", "{}", '{"files": {"06_decision.json": {}}}'])
def test_a_manifest_that_is_gone_or_spoilt_is_found(run: Path, content: str | None) -> None:
    (run / "manifest.json").unlink()
    if content is not None:
        (run / "manifest.json").write_text(content)
    status, findings = verify.verify(run)
    assert status == 10 and any("manifest.json" in finding for finding in findings)


def test_a_price_that_was_never_known_has_not_moved() -> None:
    figures = {column: float("nan") for ends in verify.MOVES.values() for column in
               (f"{ends}_low", f"{ends}_high")}  # fmt: skip
    row = pd.Series(
        figures | dict.fromkeys(verify.MOVES, float("nan")) | {"price": None}, dtype=object
    )
    assert list(verify._moved("a", row, row)) == []
    new = row.copy()
    new["price"] = "$1/hour"
    assert list(verify._moved("a", row, new)) == ["a: the price was not known, now $1/hour."]


def test_another_brief_than_expected(run: Path) -> None:
    status, findings = verify.verify(run, brief="0" * 64)
    assert (status, findings) == (10, ["the brief is not the one expected"])


def test_a_diff_names_each_value_of_the_brief_by_its_dotted_key() -> None:
    qwen = {"name": "qwen", "retires_on": None, "endpoint": {"base_url": "https://a.example/v1"}}
    gpt, long = {"name": "gpt", "retires_on": None}, "Say what it is. " * 20
    shots = [{"input": "a"}, {"input": "b"}]
    old = {
        "deployments": [qwen, gpt], "models": [{"repo_id": "a/b", "total_params_b": 8}],
        "policy": {"licenses": ["mit", "apache-2.0"], "use": "internal"}, "task": long,
        "requirements": {"min_quality": 0.8, "min_rps": 0}, "shots": shots,
    }  # fmt: skip
    before = verify._values(old)
    assert verify._values(old | {"deployments": [gpt, qwen]}) == before
    new = {
        "deployments": [gpt | {"retires_on": "2027-01-01"}, {"name": "new", "hardware": "h100-1"},
                        qwen | {"endpoint": {"base_url": "https://b.example/v1"}}],
        "models": [{"repo_id": "a/b", "total_params_b": 9}], "shots": [shots[1], shots[0]],
        "policy": {"licenses": ["apache-2.0"], "use": "internal"}, "task": f"{long}Now.",
        "requirements": {"min_quality": 0.9, "min_rps": 2},
    }  # fmt: skip
    after = verify._values(new)
    assert {k: (before.get(k), after.get(k)) for k in before | after if
            before.get(k) != after.get(k)} == {
        "deployments.qwen.endpoint.base_url": ("https://a.example/v1", "https://b.example/v1"),
        "deployments.gpt.retires_on": (None, "2027-01-01"),
        "deployments.new.name": (None, "new"),
        "deployments.new.hardware": (None, "h100-1"),
        "models.a/b.total_params_b": ("8", "9"),
        "policy.licenses": ("apache-2.0, mit", "apache-2.0"),
        "task": (long, f"{long}Now."),
        "requirements.min_quality": ("0.8", "0.9"),
        "requirements.min_rps": ("0", "2"),
        "shots.1.input": ("a", "b"),
        "shots.2.input": ("b", "a"),
    }  # fmt: skip


def test_two_runs_are_told_apart(run: Path, tmp_path: Path, capsys: Any) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert verify.diff(run, other)[0] == "The scores compare."
    assert len(verify.diff(run, other)) == 2
    pipeline.run(
        str(planned(other)),
        run_dir=str(other),
        start="06",
        parameters={"objective": "best"},
        progress=False,
    )
    assert cli.main(["diff", str(run), str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "objective: cheapest → best." in lines
    assert lines[-1] == "The pick was ministral-3-3b-2xh100, now deepseek-v3.2-8xgb200."
    assert cli.main(["verify", str(other)]) == 0
    (other / "report.html").write_text("x")
    assert cli.main(["verify", str(other)]) == 10
    assert capsys.readouterr().out.splitlines()[-1] == "report.html is another than in the record"
