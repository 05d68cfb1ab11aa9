"""lib.hub.search on a small Hub on loopback: nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import briefs
import pandas as pd
import pytest
from hub_stub import Answer, Stub, point_at, running
from huggingface_hub import constants

from lib import tables
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.hub import listing, search
from lib.legal import verdicts as legal
from lib.sizing import tiers as sizing

TODAY = date(2026, 11, 24)


def on_hub(repo_id: str, license_: str | None = "mit", **changes: Any) -> dict[str, Any]:
    """A repository as the Hub's list has it; `relation` and `base` make it a derivative."""
    name, tags = changes.pop("license_name", None), changes.pop("extra", [])
    relation, base = changes.pop("relation", None), changes.pop("base", None)
    tags = [*([f"license:{license_}"] if license_ else []), *tags]
    lineage = {"relation": relation, "models": [{"id": base}]} if base else None
    return {
        "id": repo_id,
        "downloads": 5000,
        "likes": 10,
        "trendingScore": 1,
        "pipeline_tag": "text-generation",
        "tags": tags,
        "safetensors": {"total": 8_000_000_000},
        "gguf": None,
        "baseModels": lineage,
        "cardData": {"license": license_, "license_name": name},
    } | changes


def brief(
    *, tier: str = "low", policy: Any = None, exceptions: Any = (), **candidates: Any
) -> Project:
    raw = briefs.changed("candidates", {"source": "hub", **candidates})
    raw["size"] = {"tier": tier}
    for deployment in raw["deployments"]:
        deployment["model"] = deployment["model"].replace("org/", "named/")
    raw["policy"] = policy or {"licenses": ["permissive"]}
    raw["exceptions"] = list(exceptions)
    return Project.model_validate(raw)


class Discovered(NamedTuple):
    models: pd.DataFrame
    note: str


def discover(project: Project) -> Discovered:
    return Discovered(*search.candidates(project, today=TODAY))


def ids(found: Discovered, listed_for: str = "choice") -> list[str]:
    return list(found.models.query("listed_for == @listed_for")["repo_id"])


def row(found: Discovered, repo_id: str) -> dict[Any, Any]:
    models = found.models.astype(object).where(found.models.notna(), None)
    (only,) = models[models["repo_id"] == repo_id].to_dict("records")
    return dict(only)


def passing(stub: Stub, rows: list[Any], **options: Any) -> list[str]:
    Hub(stub, rows)
    return ids(discover(brief(**options)))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    # Few tests give the Hub what the brief deploys; tests/hub/test_own_models.py is about that.
    monkeypatch.setattr(search, "unknown_models", lambda *_: [])
    with running() as stub:
        point_at(stub, monkeypatch)
        yield stub


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
            set(query["filter"]) <= set(raw["tags"] or [])
        )  # fmt: skip


# --- filters ------------------------------------------------------------------------------


def test_what_passes_is_sorted_by_popularity_and_cut_at_the_limit(stub: Stub) -> None:
    rows = [on_hub(f"org/m{n}", downloads=1000 + n, likes=100 - n) for n in range(9)]
    assert passing(stub, rows, limit=2) == ["org/m8", "org/m7"]
    assert passing(stub, rows, limit=2, sort="likes") == ["org/m0", "org/m1"]
    assert passing(stub, rows, min_downloads=1007) == ["org/m8", "org/m7"]


def test_the_size_comes_from_the_tier_unless_a_bound_is_given(stub: Stub) -> None:
    rows = [
        on_hub(f"org/m{billions}", safetensors={"total": billions * 10**9})
        for billions in (1, 8, 40, 100, 400)
    ] + [on_hub("org/unsized", safetensors=None)]
    assert passing(stub, rows, tier="low") == ["org/m1", "org/m8"]
    assert passing(stub, rows, tier="medium") == ["org/m100"]
    assert passing(stub, rows, tier="high") == ["org/m400"]
    assert len(passing(stub, rows, tier="any")) == 6
    assert passing(stub, rows, tier="low", min_params_b=5) == ["org/m8"]
    assert passing(stub, rows, tier="low", max_params_b=50) == ["org/m1", "org/m40", "org/m8"]
    with pytest.raises(PlaybookError, match=r"no size lies from 50B to 32B; give min_params_b"):
        passing(stub, rows, tier="low", min_params_b=50)


def test_planned_fine_tuning_looks_at_two_tiers_with_the_gap_left_out(stub: Stub) -> None:
    sizes = (8, 40, 100, 260, 400)
    Hub(stub, [on_hub(f"org/m{n}", safetensors={"total": n * 10**9}) for n in sizes])
    raw = brief().model_dump() | {"size": {"tier": "high", "fine_tuning": "planned"}}
    assert ids(discover(Project.model_validate(raw))) == ["org/m100", "org/m400"]


def test_text_generation_takes_multimodal_models_and_no_task_takes_all(stub: Stub) -> None:
    tasks = ["text-generation", "image-text-to-text", "text-to-image", None]
    rows = [on_hub(f"org/m{n}", pipeline_tag=task) for n, task in enumerate(tasks)]
    assert passing(stub, rows) == ["org/m0", "org/m1"]
    assert passing(stub, rows, task="text-to-image") == ["org/m2"]
    assert passing(stub, rows, task=None) == ["org/m0", "org/m1", "org/m2", "org/m3"]


def test_licences_are_the_policys_and_a_brief_can_give_others(stub: Stub) -> None:
    rows = [
        on_hub("org/apache", "apache-2.0"),
        on_hub("org/gemma", "gemma"),
        on_hub("org/nc", "cc-by-nc-4.0"),
        on_hub("org/none", None),
        on_hub("org/null", tags=None),
        on_hub("org/wtfpl", "wtfpl"),
    ]
    assert passing(stub, rows) == ["org/apache"]
    assert passing(stub, rows, policy={"licenses": ["gemma", "mit"]}) == ["org/gemma"]
    assert passing(stub, rows, licenses=["non-commercial"]) == ["org/nc"]
    assert passing(stub, rows, licenses=["wtfpl"]) == ["org/wtfpl"]
    with pytest.raises(PlaybookError, match=r"'apache' is not in .*did you mean 'apache-2.0'"):
        passing(stub, rows, licenses=["apache"])


def test_other_counts_where_its_name_or_the_catalogue_tells_which(stub: Stub) -> None:
    known = "moonshotai/Kimi-K2-Instruct"
    assert known in set(tables.models()["repo_id"])
    rows = [
        on_hub("org/lfm", "other", license_name="LFM1.0"),
        on_hub("org/unnamed", "other"),
        on_hub("org/elsewhere", "other", license_name="qwen-research"),
        on_hub(known.lower(), "other", safetensors={"total": 10**12}),
    ]
    keys = ["lfm1.0", "kimi-modified-mit"]
    assert passing(stub, rows, tier="any", licenses=keys) == [known, "org/lfm"]
    assert len(passing(stub, rows, tier="any", licenses=["other"])) == 4
    assert passing(stub, rows, licenses=["lfm1.0"]) == ["org/lfm"]


def test_copies_are_left_out_and_counted(stub: Stub) -> None:
    gguf = {"safetensors": None, "gguf": {"total": 8 * 10**9}}
    rows = [
        on_hub("org/base"),
        on_hub("org/tuned", relation="finetune", base="org/base"),
        on_hub("org/awq", relation="quantized", base="org/base"),
        on_hub("org/lora", relation="adapter", base="org/base"),
        on_hub("other/tagged", extra=["base_model:quantized:org/base"]),
        on_hub("org/instruct", relation="quantized", base="ORG/base"),
        on_hub("org/gguf", **gguf),
        on_hub("org/strange", relation="finetune", base="org/base", **gguf),
    ]
    Hub(stub, rows)
    found = discover(brief(tier="any"))
    assert ids(found) == ["org/base", "org/instruct", "org/tuned"]
    assert "5 quantised copies, adapters and GGUF-only repositories left out" in found.note
    assert "3 candidates from the Hub API of 2026-11-24" in found.note


def test_nothing_found_says_what_was_asked(stub: Stub) -> None:
    with pytest.raises(
        PlaybookError, match=r"nothing in the Hub API passes .*no-such-task.*loosen"
    ):
        passing(stub, [on_hub("org/a")], task="no-such-task")


@pytest.mark.parametrize("hostile", ["a&pipeline_tag=b", "../x", "mit' OR '1'='1", "%"])
def test_values_of_the_brief_are_values(stub: Stub, hostile: str) -> None:
    rows = [on_hub("org/a"), on_hub("org/b", pipeline_tag=hostile)]
    assert passing(stub, rows, task=hostile) == ["org/b"]
    with pytest.raises(PlaybookError, match=r"candidates\.licenses: "):
        passing(stub, rows, licenses=[hostile])


# --- the row ------------------------------------------------------------------------------


def test_a_known_model_keeps_its_row_whatever_its_case(stub: Stub) -> None:
    catalogue = tables.models()
    curated = catalogue[catalogue["repo_id"] == "Qwen/Qwen3-8B"]
    assert len(curated) == 1
    Hub(stub, [on_hub("qwen/qwen3-8b", "mit"), on_hub("QWEN/QWEN3-8B", "mit")])
    found = discover(brief()).models
    pd.testing.assert_frame_equal(found.head(1), curated.reset_index(drop=True).head(1))
    assert found["repo_id"].str.lower().is_unique


def test_an_unknown_model_gets_what_the_catalogue_knows_of_its_owner(stub: Stub) -> None:
    rows = [
        on_hub("qwen/Qwen9-New-8B", "apache-2.0", pipeline_tag="image-text-to-text"),
        on_hub("someone/Yijing-7B", "openrail"),
        on_hub("someone/kimi-copy", "other", license_name="modified-mit"),
        on_hub("someone/lfm-copy", "other", license_name="lfm1.0"),
        on_hub("someone/two", extra=["license:gemma"], cardData={"license": ["mit", "gemma"]}),
        on_hub("someone/lies", extra=["license:gemma"], cardData={"license": "gemma"}),
    ]
    Hub(stub, rows)
    found = discover(brief(licenses=["mit", "apache-2.0", "openrail", "other"]))
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
        "source": "Hub API, 2026-11-24",
        "source_url": "https://huggingface.co/qwen/Qwen9-New-8B",
        "checked_on": "2026-11-24",
    }
    yi = row(found, "someone/Yijing-7B")
    assert (yi["family"], yi["developer"], yi["country"]) == ("someone", "someone", None)
    names = ("kimi-copy", "lfm-copy", "two", "lies")
    licenses = {name: row(found, f"someone/{name}") for name in names}
    told = {name: (one["license"], one["hub_license"]) for name, one in licenses.items()}
    assert told == {
        "kimi-copy": (None, "modified-mit"),  # four texts go by this name
        "lfm-copy": ("lfm1.0", "lfm1.0"),
        "two": (None, "mit, gemma"),
        "lies": ("gemma", "gemma"),  # anybody can write a tag; the licence is the card's
    }
    assert yi["license"] == "openrail"


def test_the_rows_fit_the_catalogues_schema(stub: Stub, tmp_path: Path) -> None:
    rows = [
        on_hub("org/a"),
        on_hub("org/tiny", safetensors={"total": -5}),
        on_hub("org/base-less", relation="finetune", base="no such/base!"),
    ]
    Hub(stub, rows)
    found = discover(brief(tier="any")).models
    assert list(found.columns) == list(tables.models().columns)
    assert found.dtypes.equals(tables.models().dtypes)
    found.to_csv(tmp_path / "found.csv", index=False)
    assert len(tables.read_table("models", tmp_path / "found.csv")) == 3


def test_what_it_was_made_from_comes_along_for_its_licence(stub: Stub) -> None:
    old = {"downloads": 3}
    rows = [
        on_hub("org/tuned", base="ORG/mid", relation="finetune"),
        on_hub("org/mid", "gemma", extra=["base_model:org/first"], **old),
        on_hub("org/first", "cc-by-nc-4.0", base="org/tuned", relation="finetune", **old),
        on_hub("org/from-known", extra=["base_model:finetune:qwen/qwen3-8b"]),
        on_hub("org/lost", base="gone/gone", relation="merge"),
    ]
    Hub(stub, rows)
    found = discover(brief())
    assert ids(found) == ["org/from-known", "org/lost", "org/tuned"]
    assert ids(found, "lineage") == ["Qwen/Qwen3-8B", "org/mid", "org/first"]
    assert row(found, "org/tuned")["base_model"] == "ORG/mid"  # which steps 1 and 3 find
    judged = legal.judge(found.models, tables.licenses(), brief()).set_index("repo_id")
    assert judged.at["org/from-known", "verdict"] == "allowed"
    assert judged.at["org/tuned", "verdict"] == "blocked"
    assert judged.at["org/lost", "verdict"] == "review"
    assert "gone/gone is not in" in judged.at["org/lost", "reasons"]


def test_models_the_brief_names_are_there_whether_they_pass_or_not(stub: Stub) -> None:
    rows = [on_hub("org/popular"), on_hub("Named/A", "gemma", downloads=0), on_hub("org/x", None)]
    lift = {"lifts": "review", "approver": "Counsel", "reason": "seen", "expires": "2027-01-01"}
    Hub(stub, rows)
    found = discover(brief(exceptions=[{"model": "org/x", **lift}]))
    assert ids(found) == ["org/popular", "Named/A", "org/x"]
    assert "2 more named in the brief" in found.note
    assert "not found: named/b" in found.note


def test_the_rows_go_through_steps_1_and_2(stub: Stub) -> None:
    rows = [
        on_hub("qwen/New-8B", "apache-2.0"),
        on_hub("qwen/Tuned-8B", "apache-2.0", base="Qwen/Qwen3-8B", relation="finetune"),
        on_hub("nobody/New-8B", "apache-2.0"),
        on_hub("qwen/Bespoke-8B", "other", license_name="house-rules"),
    ]
    Hub(stub, rows)
    policy = {"licenses": ["permissive"], "countries": ["China"]}
    project = brief(licenses=["apache-2.0", "other"], policy=policy)
    judged = legal.judge(discover(project).models, tables.licenses(), project)
    assert dict(zip(judged["repo_id"], judged["verdict"], strict=True)) == {
        "qwen/New-8B": "review",  # nobody says that it is a first release
        "qwen/Tuned-8B": "allowed",
        "Qwen/Qwen3-8B": "allowed",
        "nobody/New-8B": "review",  # nobody recorded the country
        "qwen/Bespoke-8B": "review",
    }
    sized = sizing.shortlist(judged, tables.hardware(), project.size, tiers=["low"])
    assert list(sized.query("shortlisted")["repo_id"]) == ["qwen/Tuned-8B"]
    assert set(sized["tier"]) == {"low"}


def test_hostile_names_are_no_candidates(stub: Stub) -> None:
    names = ["../etc", "a/b/c", "org/<b>", "org/a\u202eb", "", None, "gpt2", "org/--x", "org/ok"]
    assert passing(stub, [on_hub(str(n)) | {"id": n} for n in names]) == ["org/ok"]


def test_hostile_texts_stay_on_one_line(stub: Stub) -> None:
    name = "=HYPERLINK(1)\n\u202e" + "x" * 999
    Hub(stub, [on_hub("org/a", "other", license_name=name)])
    text = row(discover(brief(licenses=["other"])), "org/a")["hub_license"]
    assert "\n" not in text
    assert "\u202e" not in text
    assert len(text) <= 200


# --- the list --------------------------------------------------------------------------


def test_what_the_list_finds_and_what_is_added(stub: Stub) -> None:
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
    found = discover(brief())
    first = ["org/apache", "org/mit", "org/tuned", "org/openmdw", "Qwen/Qwen3-8B", "named/b"]
    assert ids(found) == first
    assert ids(found, "lineage") == ["old/base"]
    assert row(found, "org/mit")["source"] == "Hub API, 2026-11-24"
    assert "5 candidates from the Hub API of 2026-11-24; 1 quantised copies" in found.note
    assert found.note.endswith("1 more named in the brief, 1 base models; not found: named/a")


def test_a_lineage_that_is_too_long_ends_in_a_name(stub: Stub) -> None:
    rows = [on_hub(f"org/m{n}", base=f"org/m{n + 1}", downloads=5 * (n == 0)) for n in range(9)]
    Hub(stub, rows)
    found = discover(brief(min_downloads=5))
    assert ids(found) == ["org/m0"]
    assert ids(found, "lineage") == [f"org/m{n}" for n in range(1, search.GENERATIONS + 1)]
    last = row(found, f"org/m{search.GENERATIONS}")
    assert last["base_model"] == f"org/m{search.GENERATIONS + 1}"


def test_a_base_that_nobody_has_is_asked_for_once(stub: Stub) -> None:
    Hub(stub, [on_hub("org/a", base="gone/gone"), on_hub("org/b", base="Gone/gone")])
    discover(brief())
    assert [path.lower() for path in stub.paths].count("/api/models/gone/gone") == 1


def test_pages_are_followed_on_the_hub_alone(stub: Stub) -> None:
    rows = [on_hub(f"org/m{n}", downloads=9000 - n) for n in range(25)]
    hub = Hub(stub, rows, page=4)
    project = brief(licenses=["mit"], task="text-generation", limit=10)
    assert ids(discover(project)) == [f"org/m{n}" for n in range(10)]
    lists = [query for path, query, _ in stub.asked if path == "/api/models"]
    assert [q.get("cursor", ["0"])[0] for q in lists if q["pipeline_tag"] == ["text-generation"]] \
        == ["0", "4", "8"]  # fmt: skip
    hub.page = 1
    cut = discover(brief(licenses=["mit"], limit=100))
    assert len(ids(cut)) == listing.PAGES
    assert "1 of 2 lists were longer than could be read" in cut.note


def test_a_popular_list_ends_where_it_is_no_longer_popular(stub: Stub) -> None:
    Hub(stub, [on_hub(f"org/m{n}", downloads=1004 - n) for n in range(30)], page=10)
    found = discover(brief(licenses=["mit"]))
    assert ids(found) == [f"org/m{n}" for n in range(5)]
    assert sum(path == "/api/models" for path in stub.paths) == 2


def test_the_query_says_what_the_brief_says(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(stub, [on_hub("org/a", served=["together"]), on_hub("org/c")])
    options = {"licenses": ["mit"], "provider": "together", "sort": "trending", "min_params_b": 0.5}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert ids(discover(brief(**options))) == ["org/a"]
    _, query, headers = stub.asked[0]
    assert query["filter"] == ["license:mit"]
    assert query["num_parameters"] == ["min:500M,max:32B"]
    assert query["inference_provider"] == ["together"]
    assert query["sort"] == ["trendingScore"]
    assert "authorization" not in headers  # this is not huggingface.co


def test_hostile_answers_are_no_candidates(stub: Stub) -> None:
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
    found = discover(brief(licenses=["mit"], task="text-generation"))
    assert ids(found) == ["org/fine", "org/wrong"]
    assert row(found, "org/wrong")["hub_params_b"] is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer({"error": "hf_secret"}, 400), "check candidates.task and candidates.provider"),
        (Answer({}, 401), "check or unset it"),
        (Answer({}, 418), "the Hub answered 418: run the step again later"),
        (Answer(b"<html>"), "the answer is not the Hub's JSON"),
        (Answer({"error": "x"}), "nothing in the Hub API passes"),
    ],
)
def test_refusals_are_one_sentence(stub: Stub, answer: Answer, says: str) -> None:
    stub.list_pages(answer)
    with pytest.raises(PlaybookError) as caught:
        discover(brief())
    assert says in str(caught.value)
    assert "source to catalogue" in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_without_a_network_the_catalogue_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlaybookError, match=r"HF_HUB_OFFLINE is set.*source to catalogue"):
        discover(brief())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PlaybookError, match=r"127\.0\.0\.1:9 cannot be asked .*to catalogue"):
        discover(brief())
