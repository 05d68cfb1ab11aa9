"""lib.discovery on small indexes and on a small Hub on loopback: nothing leaves the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import briefs
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hub_stub import Answer, Stub, running
from huggingface_hub import constants

from lib import tables
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.hub import filters as hub_filters
from lib.hub import listing as hub_list
from lib.hub import search as discovery
from lib.legal import verdicts as legal
from lib.sizing import tiers as sizing

TODAY = date(2026, 11, 24)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("downloads", pa.int64()),
        ("likes", pa.int64()),
        ("trendingScore", pa.float64()),
        ("lastModified", pa.timestamp("ms")),
        ("pipeline_tag", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("safetensors", pa.struct([("total", pa.int64())])),
        ("gguf", pa.struct([("total", pa.int64())])),
        (
            "baseModels",
            pa.struct(
                [
                    ("relation", pa.string()),
                    ("models", pa.list_(pa.struct([("id", pa.string())]))),
                ]
            ),
        ),
        ("cardData", pa.string()),
    ]
)


def listed(repo_id: str, license_: str | None = "mit", **changes: Any) -> dict[str, Any]:
    """A repository as the index has it; `relation` and `base` make it a derivative."""
    name, tags = changes.pop("license_name", None), changes.pop("extra", [])
    relation, base = changes.pop("relation", None), changes.pop("base", None)
    tags = [*([f"license:{license_}"] if license_ else []), *tags]
    lineage = {"relation": relation, "models": [{"id": base}]} if base else None
    return {
        "id": repo_id,
        "downloads": 5000,
        "likes": 10,
        "trendingScore": 1.0,
        "lastModified": pd.Timestamp("2026-11-20"),
        "pipeline_tag": "text-generation",
        "tags": tags,
        "safetensors": {"total": 8_000_000_000},
        "gguf": None,
        "baseModels": lineage,
        "cardData": json.dumps({"license": license_, "license_name": name}),
    } | changes


def write(folder: Path, rows: list[dict[str, Any]], name: str = "models.parquet") -> Path:
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / name)
    return folder / name


def brief(
    folder: Path, *, tier: str = "low", policy: Any = None, exceptions: Any = (), **candidates: Any
) -> Project:
    raw = briefs.changed("candidates", {"source": "hub", "via": "index", **candidates})
    raw["size"] = {"tier": tier}
    for deployment in raw["deployments"]:
        deployment["model"] = deployment["model"].replace("org/", "named/")
    raw["policy"] = policy or {"licenses": ["permissive"]}
    raw["exceptions"] = list(exceptions)
    raw["candidates"].setdefault("index", str(folder / "models.parquet"))
    return Project.model_validate(raw)


def discover(project: Project, **options: Any) -> discovery.Discovered:
    return discovery.candidates(
        project,
        catalogue=tables.models(),
        licenses=tables.licenses(),
        closed_models=tables.closed_models(),
        **{"today": TODAY} | options,
    )


def ids(found: discovery.Discovered, listed_for: str = "choice") -> list[str]:
    return list(found.models.query("listed_for == @listed_for")["repo_id"])


def row(found: discovery.Discovered, repo_id: str) -> dict[Any, Any]:
    models = found.models.astype(object).where(found.models.notna(), None)
    (only,) = models[models["repo_id"] == repo_id].to_dict("records")
    return dict(only)


def search(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[str]:
    write(folder, rows)
    return ids(discover(brief(folder, **options)))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        yield stub


# --- filters ------------------------------------------------------------------------------


def test_what_passes_is_sorted_by_popularity_and_cut_at_the_limit(tmp_path: Path) -> None:
    rows = [listed(f"org/m{n}", downloads=1000 + n, likes=100 - n) for n in range(9)]
    assert search(tmp_path, rows, limit=2) == ["org/m8", "org/m7"]
    assert search(tmp_path, rows, limit=2, sort="likes") == ["org/m0", "org/m1"]
    assert search(tmp_path, rows, min_downloads=1007) == ["org/m8", "org/m7"]


def test_the_size_comes_from_the_tier_unless_a_bound_is_given(tmp_path: Path) -> None:
    rows = [
        listed(f"org/m{billions}", safetensors={"total": billions * 10**9})
        for billions in (1, 8, 40, 100, 400)
    ] + [listed("org/unsized", safetensors=None)]
    assert search(tmp_path, rows, tier="low") == ["org/m1", "org/m8"]
    assert search(tmp_path, rows, tier="medium") == ["org/m100"]
    assert search(tmp_path, rows, tier="high") == ["org/m400"]
    assert len(search(tmp_path, rows, tier="any")) == 6
    assert search(tmp_path, rows, tier="low", min_params_b=5) == ["org/m8"]
    assert search(tmp_path, rows, tier="low", max_params_b=50) == ["org/m1", "org/m40", "org/m8"]
    with pytest.raises(PlaybookError, match=r"no size lies from 50B to 32B; give min_params_b"):
        search(tmp_path, rows, tier="low", min_params_b=50)


def test_planned_fine_tuning_looks_at_two_tiers_with_the_gap_left_out(tmp_path: Path) -> None:
    sizes = (8, 40, 100, 260, 400)
    write(tmp_path, [listed(f"org/m{n}", safetensors={"total": n * 10**9}) for n in sizes])
    raw = brief(tmp_path).model_dump() | {"size": {"tier": "high", "fine_tuning": "planned"}}
    assert ids(discover(Project.model_validate(raw))) == ["org/m100", "org/m400"]


def test_text_generation_takes_multimodal_models_and_no_task_takes_all(tmp_path: Path) -> None:
    tasks = ["text-generation", "image-text-to-text", "text-to-image", None]
    rows = [listed(f"org/m{n}", pipeline_tag=task) for n, task in enumerate(tasks)]
    assert search(tmp_path, rows) == ["org/m0", "org/m1"]
    assert search(tmp_path, rows, task="text-to-image") == ["org/m2"]
    assert search(tmp_path, rows, task=None) == ["org/m0", "org/m1", "org/m2", "org/m3"]


def test_licences_are_the_policys_and_a_brief_can_give_others(tmp_path: Path) -> None:
    rows = [
        listed("org/apache", "apache-2.0"),
        listed("org/gemma", "gemma"),
        listed("org/nc", "cc-by-nc-4.0"),
        listed("org/none", None),
        listed("org/null", tags=None),
        listed("org/wtfpl", "wtfpl"),
    ]
    assert search(tmp_path, rows) == ["org/apache"]
    assert search(tmp_path, rows, policy={"licenses": ["gemma", "mit"]}) == ["org/gemma"]
    assert search(tmp_path, rows, licenses=["non-commercial"]) == ["org/nc"]
    assert search(tmp_path, rows, licenses=["wtfpl"]) == ["org/wtfpl"]
    with pytest.raises(PlaybookError, match=r"'apache' is not in .*did you mean 'apache-2.0'"):
        search(tmp_path, rows, licenses=["apache"])


def test_other_counts_where_its_name_or_the_catalogue_tells_which(tmp_path: Path) -> None:
    known = "moonshotai/Kimi-K2-Instruct"
    assert known in set(tables.models()["repo_id"])
    rows = [
        listed("org/lfm", "other", license_name="LFM1.0"),
        listed("org/unnamed", "other"),
        listed("org/elsewhere", "other", license_name="qwen-research"),
        listed(known.lower(), "other", safetensors={"total": 10**12}),
    ]
    keys = ["lfm1.0", "kimi-modified-mit"]
    assert search(tmp_path, rows, tier="any", licenses=keys) == [known, "org/lfm"]
    assert len(search(tmp_path, rows, tier="any", licenses=["other"])) == 4
    assert search(tmp_path, rows, licenses=["lfm1.0"]) == ["org/lfm"]


def test_copies_are_left_out_and_counted(tmp_path: Path) -> None:
    gguf = {"safetensors": None, "gguf": {"total": 8 * 10**9}}
    rows = [
        listed("org/base"),
        listed("org/tuned", relation="finetune", base="org/base"),
        listed("org/awq", relation="quantized", base="org/base"),
        listed("org/lora", relation="adapter", base="org/base"),
        listed("org/tagged", extra=["base_model:quantized:org/base"]),
        listed("org/gguf", **gguf),
        listed("org/strange", relation="finetune", base="org/base", **gguf),
    ]
    write(tmp_path, rows)
    found = discover(brief(tmp_path))
    assert ids(found) == ["org/base", "org/tuned"]
    assert "5 quantised copies, adapters and GGUF-only repositories left out" in found.note
    assert "2 candidates from the Hub index models.parquet of 2026-11-20" in found.note


def test_nothing_found_says_what_was_asked(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"nothing in the Hub index .* passes .*loosen"):
        search(tmp_path, [listed("org/a")], task="no-such-task")


@pytest.mark.parametrize("hostile", ["'; DROP TABLE hits; --", "mit' OR '1'='1", "$index", "%"])
def test_values_of_the_brief_are_values(tmp_path: Path, hostile: str) -> None:
    rows = [listed("org/a"), listed("org/b", pipeline_tag=hostile)]
    assert search(tmp_path, rows, task=hostile) == ["org/b"]
    with pytest.raises(PlaybookError, match=r"candidates\.licenses: "):
        search(tmp_path, rows, licenses=[hostile])
    with pytest.raises(PlaybookError, match=r"candidates\.index .*no such file"):
        search(tmp_path, rows, index=str(tmp_path / f"{hostile}.parquet"))


# --- the row ------------------------------------------------------------------------------


def test_a_known_model_keeps_its_row_whatever_its_case(tmp_path: Path) -> None:
    catalogue = tables.models()
    curated = catalogue[catalogue["repo_id"] == "Qwen/Qwen3-8B"]
    assert len(curated) == 1
    write(tmp_path, [listed("qwen/qwen3-8b", "mit"), listed("QWEN/QWEN3-8B", "mit")])
    found = discover(brief(tmp_path)).models
    pd.testing.assert_frame_equal(found.head(1), curated.reset_index(drop=True).head(1))
    assert found["repo_id"].str.lower().is_unique


def test_an_unknown_model_gets_what_the_catalogue_knows_of_its_owner(tmp_path: Path) -> None:
    rows = [
        listed("qwen/Qwen9-New-8B", "apache-2.0", pipeline_tag="image-text-to-text"),
        listed("someone/Yijing-7B", "openrail"),
        listed("someone/kimi-copy", "other", license_name="modified-mit"),
        listed("someone/lfm-copy", "other", license_name="lfm1.0"),
        listed("someone/two", "mit", extra=["license:gemma"]),
    ]
    write(tmp_path, rows)
    found = discover(brief(tmp_path, licenses=["mit", "apache-2.0", "openrail", "other"]))
    assert row(found, "qwen/Qwen9-New-8B") == dict.fromkeys(found.models.columns) | {
        "repo_id": "qwen/Qwen9-New-8B",
        "family": "Qwen",
        "developer": "Alibaba",
        "country": "China",
        "license": "apache-2.0",
        "hub_license": "apache-2.0",
        "hub_params_b": 8.0,
        "modality": "multimodal",
        "listed_for": "choice",
        "source": "Hub index models.parquet, 2026-11-20",
        "source_url": "https://huggingface.co/qwen/Qwen9-New-8B",
        "checked_on": "2026-11-20",
    }
    yi = row(found, "someone/Yijing-7B")
    assert (yi["family"], yi["developer"], yi["country"]) == ("someone", "someone", None)
    licenses = {name: row(found, f"someone/{name}") for name in ("kimi-copy", "lfm-copy", "two")}
    told = {name: (one["license"], one["hub_license"]) for name, one in licenses.items()}
    assert told == {
        "kimi-copy": (None, "modified-mit"),  # four texts go by this name
        "lfm-copy": ("lfm1.0", "lfm1.0"),
        "two": (None, "mit, gemma"),
    }
    assert yi["license"] == "openrail"


def test_the_rows_fit_the_catalogues_schema(tmp_path: Path) -> None:
    rows = [
        listed("org/a"),
        listed("org/tiny", safetensors={"total": -5}),
        listed("org/base-less", relation="finetune", base="no such/base!"),
    ]
    write(tmp_path, rows)
    found = discover(brief(tmp_path, tier="any")).models
    assert list(found.columns) == list(tables.models().columns)
    assert found.dtypes.equals(tables.models().dtypes)
    found.to_csv(tmp_path / "found.csv", index=False)
    assert len(tables.read_table("models", tmp_path / "found.csv")) == 3


def test_what_it_was_made_from_comes_along_for_its_licence(tmp_path: Path) -> None:
    old = {"downloads": 3}
    rows = [
        listed("org/tuned", base="ORG/mid", relation="finetune"),
        listed("org/mid", "gemma", extra=["base_model:org/first"], **old),
        listed("org/first", "cc-by-nc-4.0", base="org/tuned", relation="finetune", **old),
        listed("org/from-known", extra=["base_model:finetune:qwen/qwen3-8b"]),
        listed("org/lost", base="gone/gone", relation="merge"),
    ]
    write(tmp_path, rows)
    found = discover(brief(tmp_path))
    assert ids(found) == ["org/from-known", "org/lost", "org/tuned"]
    assert ids(found, "lineage") == ["Qwen/Qwen3-8B", "org/mid", "org/first"]
    assert row(found, "org/tuned")["base_model"] == "org/mid"
    assert row(found, "org/from-known")["base_model"] == "Qwen/Qwen3-8B"
    judged = legal.judge(found.models, tables.licenses(), brief(tmp_path)).set_index("repo_id")
    assert judged.at["org/from-known", "verdict"] == "allowed"
    assert judged.at["org/tuned", "verdict"] == "blocked"
    assert judged.at["org/lost", "verdict"] == "review"
    assert "gone/gone is not in" in judged.at["org/lost", "reasons"]


def test_models_the_brief_names_are_there_whether_they_pass_or_not(tmp_path: Path) -> None:
    rows = [listed("org/popular"), listed("Named/A", "gemma", downloads=0), listed("org/x", None)]
    lift = {"lifts": "review", "approver": "Counsel", "reason": "seen", "expires": "2027-01-01"}
    write(tmp_path, rows)
    found = discover(brief(tmp_path, exceptions=[{"model": "org/x", **lift}]))
    assert ids(found) == ["org/popular", "Named/A", "org/x"]
    assert "2 more named in the brief" in found.note
    assert "not found: named/b" in found.note


def test_the_rows_go_through_steps_1_and_2(tmp_path: Path) -> None:
    rows = [
        listed("qwen/New-8B", "apache-2.0"),
        listed("nobody/New-8B", "apache-2.0"),
        listed("qwen/Bespoke-8B", "other", license_name="house-rules"),
    ]
    write(tmp_path, rows)
    policy = {"licenses": ["permissive"], "countries": ["China"]}
    project = brief(tmp_path, licenses=["apache-2.0", "other"], policy=policy)
    judged = legal.judge(discover(project).models, tables.licenses(), project)
    assert dict(zip(judged["repo_id"], judged["verdict"], strict=True)) == {
        "qwen/New-8B": "allowed",
        "nobody/New-8B": "review",  # nobody recorded the country
        "qwen/Bespoke-8B": "review",
    }
    sized = sizing.shortlist(judged, tables.hardware(), project.size, tiers=["low"])
    assert list(sized.query("shortlisted")["repo_id"]) == ["qwen/New-8B"]
    assert set(sized["tier"]) == {"low"}


# --- the index ----------------------------------------------------------------------------


def test_json_text_and_numbers_as_text_are_read(tmp_path: Path) -> None:
    plain = pd.DataFrame(
        {
            "id": ["org/a", "org/b", "org/broken", "org/wrong"],
            "downloads": ["5000", "4000", "3000", "many"],
            "pipeline_tag": ["text-generation"] * 4,
            "tags": ['["license:mit", 5]', '["license:mit"]', "{", '["license:mit"]'],
            "safetensors": ['{"total": 8e9}', '{"total": "x"}', "[", '{"total": 8000000000}'],
            "baseModels": ['{"relation": "finetune", "models": [{"id": "org/b"}]}', "", "[", None],
        }
    )
    plain.to_parquet(tmp_path / "models.parquet")
    found = discover(brief(tmp_path, min_downloads=1))
    assert ids(found) == ["org/a"]
    assert ids(found, "lineage") == ["org/b"]
    assert row(found, "org/a")["hub_params_b"] == 8.0
    assert row(found, "org/b")["hub_params_b"] is None
    assert row(found, "org/a")["checked_on"] <= date.today().isoformat()


@pytest.mark.parametrize("column", ["gguf", "baseModels", "cardData", "lastModified", "likes"])
def test_a_column_less_is_no_matter_where_it_is_not_needed(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, [listed("org/a", extra=["base_model:quantized:x/y"]), listed("org/c")])
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    found = discover(brief(tmp_path))
    assert ids(found) == ["org/c"]
    assert ("no licence names in the index" in found.note) == (column == "cardData")


@pytest.mark.parametrize("column", ["id", "tags", "downloads", "pipeline_tag", "safetensors"])
def test_a_necessary_column_is_named_with_what_there_is(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, [listed("org/a")])
    whole = pd.read_parquet(path)
    whole.drop(columns=column).to_parquet(path)
    there = ", ".join(whole.columns.drop(column))
    with pytest.raises(PlaybookError, match=f"needs the column '{column}'; it has {there}"):
        discover(brief(tmp_path))
    whole.assign(**{column: [[1.5]]}).to_parquet(path)
    if column != "tags":
        with pytest.raises(PlaybookError, match=rf"'{column}'; it has {column} DOUBLE\[\], not"):
            discover(brief(tmp_path))


def test_hostile_names_are_no_candidates(tmp_path: Path) -> None:
    names = ["../etc", "a/b/c", "org/<b>", "org/a\u202eb", "", None, "gpt2", "org/--x", "org/ok"]
    assert search(tmp_path, [listed(str(n)) | {"id": n} for n in names]) == ["org/ok"]


def test_hostile_texts_stay_on_one_line(tmp_path: Path) -> None:
    name = "=HYPERLINK(1)\n\u202e" + "x" * 999
    write(tmp_path, [listed("org/a", "other", license_name=name)])
    text = row(discover(brief(tmp_path, licenses=["other"])), "org/a")["hub_license"]
    assert "\n" not in text
    assert "\u202e" not in text
    assert len(text) <= 200


def test_a_glob_and_a_path_beside_the_brief(tmp_path: Path) -> None:
    write(tmp_path, [listed("org/a")], "part-1.parquet")
    write(tmp_path, [listed("org/c")], "part-2.parquet")
    project = brief(tmp_path, index="part-*.parquet").model_copy(update={"folder": tmp_path})
    assert ids(discover(project)) == ["org/a", "org/c"]


def test_what_is_no_index_says_so(tmp_path: Path) -> None:
    (tmp_path / "models.parquet").write_text("not parquet")
    with pytest.raises(PlaybookError, match=r"index .*models\.parquet': not a parquet file"):
        discover(brief(tmp_path))
    with pytest.raises(PlaybookError, match=r"give a file, a glob or hf://"):
        discover(brief(tmp_path, index="s3://bucket/models.parquet"))
    with pytest.raises(PlaybookError, match=r"provider 'together': .* candidates\.via to api"):
        discover(brief(tmp_path, provider="together"))


def test_a_truncated_index_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, [listed(f"org/m{n}") for n in range(5000)])
    raw = bytearray(path.read_bytes())
    raw[100:4000] = bytes(3900)
    path.write_bytes(raw)
    with pytest.raises(PlaybookError, match=r"candidates\.index "):
        discover(brief(tmp_path))


def test_the_index_on_the_hub_is_not_asked_for_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    index = "hf://datasets/cfahlgren1/hub-stats/models.parquet"
    with pytest.raises(PlaybookError, match=r"HF_HUB_OFFLINE is set; .*source to catalogue"):
        discover(brief(Path(), index=index))


def test_the_index_on_the_hub_is_read_through_its_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Files(MemoryFileSystem):  # type: ignore[misc]
        protocol = "hf"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(MemoryFileSystem._strip_protocol(path.removeprefix("hf://")))

    files, asked = Files(skip_instance_cache=True), []
    files.pipe("/datasets/o/n/m.parquet", write(tmp_path, [listed("org/a")]).read_bytes())

    def filesystem(protocol: str, **options: Any) -> Files:
        asked.append((protocol, options["token"]))
        return files

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    monkeypatch.setattr(hub_index.fsspec, "filesystem", filesystem)
    wanted = hub_filters.filters(
        brief(tmp_path), tables.models(), tables.licenses(), tables.closed_models()
    )
    found = hub_index.search("hf://datasets/o/n/m.parquet", wanted, token="hf_secret")
    assert [one.repo_id for one in found.repos] == ["org/a"]
    assert asked == [("hf", False)]
    with pytest.raises(PlaybookError, match=r"the Hub has no such file"):
        hub_index.search("hf://datasets/o/n/other.parquet", wanted)
    monkeypatch.setattr(files, "glob", lambda path: 1 / 0)
    with pytest.raises(PlaybookError, match=r"could not be asked \(ZeroDivisionError\)"):
        hub_index.search("hf://datasets/o/n/m.parquet", wanted)


def test_an_index_the_hub_does_not_have(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"the Hub has no such file, or it needs your HF_TOKEN"):
        discover(brief(tmp_path, index="hf://datasets/no/where/models.parquet"), token="hf_secret")
    assert stub.asked
    assert not any("authorization" in headers for _, _, headers in stub.asked)


# --- the API ------------------------------------------------------------------------------


def on_hub(repo_id: str, license_: str = "mit", **changes: Any) -> dict[str, Any]:
    """A repository as the Hub's list has it."""
    raw = listed(repo_id, license_, **changes)
    return raw | {"cardData": json.loads(raw["cardData"]), "lastModified": "2026-11-20"}


class Hub:
    """The Hub's list: every filter must hold, most of the sort key first, page by page."""

    def __init__(self, stub: Stub, rows: list[Any], page: int = 100) -> None:
        self.stub, self.rows, self.page = stub, rows, page
        stub.default = self.answer  # type: ignore[method-assign]

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path != "/api/models":
            ids = {f"/api/models/{r['id']}".lower(): r for r in self.rows if isinstance(r, dict)}
            return Answer(ids[path.lower()]) if path.lower() in ids else Answer({}, 404)
        rows = [r for r in self.rows if not isinstance(r, dict) or self.holds(r, query)]
        key = query["sort"][0]
        rows.sort(key=lambda r: -r[key] if type(getattr(r, "get", dict)(key)) is int else 1)
        start = int(query.get("cursor", ["0"])[0])
        end = start + min(self.page, int(query["limit"][0]))
        onward = urlencode(query | {"cursor": [str(end)]}, doseq=True)
        more = {"Link": f'<https://evil.example/api/models?{onward}>; rel="next"'}
        return Answer(rows[start:end], headers=more if end < len(rows) else {})

    @staticmethod
    def holds(raw: dict[str, Any], query: dict[str, list[str]]) -> bool:
        low, high = 0.0, float("inf")
        for part in query.get("num_parameters", [""])[0].split(","):
            unit = {"B": 1e9, "M": 1e6}.get(part[-1:], 1)
            low = float(part[4:-1]) * unit if part.startswith("min:") else low
            high = float(part[4:-1]) * unit if part.startswith("max:") else high
        total = (raw.get("safetensors") or {}).get("total")
        sized = "num_parameters" not in query or (total is not None and low <= total <= high)
        task = query.get("pipeline_tag", [raw["pipeline_tag"]])[0]
        provider = query.get("inference_provider", [""])[0]
        served = not provider or provider in raw.get("served", [])
        return sized and served and task == raw["pipeline_tag"] and (
            set(query["filter"]) <= set(raw["tags"])
        )  # fmt: skip


def test_both_ways_find_the_same(stub: Stub, tmp_path: Path) -> None:
    rows = [
        on_hub("org/apache", "apache-2.0", downloads=9000),
        on_hub("org/mit", downloads=8000, pipeline_tag="image-text-to-text"),
        on_hub("org/gemma", "gemma"),
        on_hub("org/rare", downloads=10),
        on_hub("org/large", safetensors={"total": 100 * 10**9}),
        on_hub("org/awq", relation="quantized", base="org/mit"),
        on_hub("org/tuned", downloads=7000, relation="finetune", base="old/base"),
        on_hub("old/base", "cc-by-nc-4.0", downloads=2),
        on_hub("org/openmdw", "other", license_name="openmdw-1.1", downloads=6000),
        on_hub("org/house", "other", license_name="house-rules"),
        on_hub("Qwen/qwen3-8b", "apache-2.0", downloads=5500),
        on_hub("named/b", "gemma", downloads=0),
    ]
    Hub(stub, rows)
    text = [raw | {"cardData": json.dumps(raw["cardData"])} for raw in rows]
    write(tmp_path, [r | {"lastModified": pd.Timestamp("2026-11-20")} for r in text])
    by_index = discover(brief(tmp_path))
    by_api = discover(brief(tmp_path, via="api"))
    fixed = ["source", "checked_on"]
    pd.testing.assert_frame_equal(
        by_api.models.drop(columns=fixed), by_index.models.drop(columns=fixed)
    )
    first = ["org/apache", "org/mit", "org/tuned", "org/openmdw", "Qwen/Qwen3-8B", "named/b"]
    assert ids(by_api) == first
    assert ids(by_api, "lineage") == ["old/base"]
    assert row(by_api, "org/mit")["source"] == "Hub API, 2026-11-24"
    assert "1 quantised copies" in by_api.note


def test_pages_are_followed_on_the_hub_alone(stub: Stub, tmp_path: Path) -> None:
    rows = [on_hub(f"org/m{n}", downloads=9000 - n) for n in range(25)]
    hub = Hub(stub, rows, page=4)
    project = brief(tmp_path, via="api", licenses=["mit"], task="text-generation", limit=10)
    assert ids(discover(project)) == [f"org/m{n}" for n in range(10)]
    lists = [query for path, query, _ in stub.asked if path == "/api/models"]
    assert [q.get("cursor", ["0"])[0] for q in lists if q["pipeline_tag"] == ["text-generation"]] \
        == ["0", "4", "8"]  # fmt: skip
    hub.page = 1
    cut = discover(brief(tmp_path, via="api", licenses=["mit"], limit=100))
    assert len(ids(cut)) == hub_list.PAGES
    assert "1 of 2 lists were longer than could be read" in cut.note


def test_a_popular_list_ends_where_it_is_no_longer_popular(stub: Stub, tmp_path: Path) -> None:
    Hub(stub, [on_hub(f"org/m{n}", downloads=1004 - n) for n in range(30)], page=10)
    found = discover(brief(tmp_path, via="api", licenses=["mit"]))
    assert ids(found) == [f"org/m{n}" for n in range(5)]
    assert sum(path == "/api/models" for path in stub.paths) == 2


def test_the_query_says_what_the_brief_says(stub: Stub, tmp_path: Path) -> None:
    Hub(stub, [on_hub("org/a", served=["together"]), on_hub("org/c")])
    options = {"licenses": ["mit"], "provider": "together", "sort": "trending", "min_params_b": 0.5}
    assert ids(discover(brief(tmp_path, via="api", **options), token="hf_secret")) == ["org/a"]
    _, query, headers = stub.asked[0]
    assert query["filter"] == ["license:mit"]
    assert query["num_parameters"] == ["min:500M,max:32B"]
    assert query["inference_provider"] == ["together"]
    assert query["sort"] == ["trendingScore"]
    assert "authorization" not in headers  # this is not huggingface.co


def test_hostile_answers_are_no_candidates(stub: Stub, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "safetensors": {"total": "8"}, "baseModels": ["x"], "cardData": 7, "gguf": [], "likes": {},
    }  # fmt: skip
    rows = [
        "text", None, 5, [], {"id": "../x"} | on_hub("x/y") | {"id": "../x"},
        on_hub("org/wrong") | wrong | {"tags": ["license:mit", 5, None]},
        on_hub("org/fine"),
        on_hub("org/never") | {"downloads": "many"},
    ]  # fmt: skip
    stub.list_pages([raw for raw in rows])
    found = discover(brief(tmp_path, via="api", licenses=["mit"], task="text-generation"))
    assert ids(found) == ["org/fine", "org/wrong"]
    assert row(found, "org/wrong")["hub_params_b"] is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer({"error": "hf_secret"}, 400), "check candidates.task and candidates.provider"),
        (Answer({}, 401), "check or unset it"),
        (Answer({}, 418), "the Hub answered 418; try again later"),
        (Answer(b"<html>"), "does not answer as the Hub does"),
        (Answer({"error": "x"}), "nothing in the Hub API passes"),
    ],
)
def test_refusals_are_one_sentence(stub: Stub, tmp_path: Path, answer: Answer, says: str) -> None:
    stub.list_pages(answer)
    with pytest.raises(PlaybookError) as caught:
        discover(brief(tmp_path, via="api"))
    assert says in str(caught.value)
    assert "source to catalogue" in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_without_a_network_the_catalogue_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlaybookError, match=r"HF_HUB_OFFLINE is set; .*source to catalogue"):
        discover(brief(tmp_path, via="api"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PlaybookError, match=r"127\.0\.0\.1:9 cannot be asked .*to catalogue"):
        discover(brief(tmp_path, via="api"))
