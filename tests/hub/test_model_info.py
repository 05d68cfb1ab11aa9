"""lib.hub.model_info on plain answers: hostile, half empty and of wrong types."""

from __future__ import annotations

from typing import Any

import pytest
from hub_stub import CONFIG, ROUTED, SHA, files, model

from lib.hub import model_info

JUNK: list[Any] = [None, "x", 3, -1, 1e9, 10**30, True, [], ["a", {"b": [None]}], {"id": {"x": 1}}]
ROW = {
    "repo_id": "acme/large",
    "hub_license": "mit",
    "hub_params_b": 7.0,
    "base_model": "acme/old",
    "context_length": 4096.0,
    "layers": 32.0,
    "kv_heads": None,
    "head_dim": 128.0,
    "checked_on": "2026-10-02",
}


def facts(extra: object = None, config_json: object = None, **changes: Any) -> dict[str, Any]:
    answers = {
        "model": {"answer": model("acme/large", **changes), "source": "hub", "retrieved_at": "now"},
        "files": {"answer": files("acme/large") if extra is None else extra},
        "config": {} if config_json is None else {"answer": config_json},
    }
    return model_info.metadata_row(ROW, answers)


def test_the_catalogue_where_the_hub_told_nothing() -> None:
    row = model_info.metadata_row(ROW, {"problem": "gone"})
    assert row == {
        "repo_id": "acme/large",
        "metadata_source": "catalogue",
        "retrieved_at": "2026-10-02",
        "license_on_hub": "mit",
        "params_b": 7.0,
        "context_length": 4096,
        "layers": 32,
        "kv_heads": None,
        "head_dim": 128,
        "base_models": "acme/old",
        "lineage_verdict": "base: acme/old",
        "problem": "gone",
    }


def test_config_is_of_the_hub_or_null_and_never_of_the_catalogue() -> None:
    known, unknown = facts(config_json=CONFIG), facts()
    assert (known["context_length"], known["layers"], known["head_dim"]) == (131072, 32, 128)
    assert unknown["context_length"] is unknown.get("layers") is unknown.get("head_dim") is None
    assert facts(gguf={"context_length": 8192})["context_length"] == 8192
    assert facts(gguf={"context_length": 8192}, config_json=CONFIG)["context_length"] == 131072


@pytest.mark.parametrize(
    ("listed", "tags", "expected"),
    [
        ({"relation": "merge", "models": [{"id": "a/b"}, {"id": "c/d"}]}, [], "a/b;c/d"),
        (["a/b", "a/b", "c/d"], [], "a/b;c/d"),
        ([{"id": "a/b"}], [], "a/b"),
        (None, ["base_model:a/b", "base_model:quantized:a/b"], "a/b"),
        ({}, ["base_model:adapter:a/b"], "a/b"),
        ({"relation": "<b>", "models": [{"id": "a/b"}]}, [], "a/b"),
        ({"relation": ["merge"], "models": [{"id": "a/b"}]}, [], "a/b"),
        ({"relation": "merge", "models": []}, [], None),
        (None, [], None),
        ("a/b", [], None),
        ({"models": "a/b"}, [7, None, {"base_model:": 1}], None),
        # what is named and is no repository stays: it is not "none"
        (["<script>", "../../etc"], [], "<script>;../../etc"),
        (None, ["base_model:finetune:./Qwen3-8B"], "./Qwen3-8B"),
        (None, ["base_model:https://huggingface.co/a/b"], "https://huggingface.co/a/b"),
        (None, ["base_model:/data/qwen;8b"], "/data/qwen,8b"),
    ],
)
def test_base_models(listed: object, tags: list[Any], expected: str | None) -> None:
    row = facts(baseModels=listed, tags=tags)
    assert row["base_models"] == expected
    assert row["lineage_verdict"] == (f"base: {expected}" if expected else "")


@pytest.mark.parametrize(
    ("on_page", "tags", "on_card", "expected"),
    [
        (["a/b"], ["base_model:a/b"], ["a/b", "./local"], "a/b;card: ./local"),
        (["a/b"], ["base_model:a/b", "base_model:merge:c/gone"], None, "a/b;c/gone"),
        ([], ["base_model:a/b"], ["a/b", {"c": 1}], "a/b;card: {'c': 1}"),
        (["new/name"], ["base_model:finetune:old/name"], "old/name", "new/name"),
    ],
)
def test_a_base_that_the_hub_could_not_resolve_stays(
    on_page: list[str], tags: list[str], on_card: object, expected: str
) -> None:
    row = facts(baseModels=on_page, tags=tags, cardData={"base_model": on_card})
    assert row["base_models"] == expected


@pytest.mark.parametrize("stated", ["Qwen/Qwen3-8B", ["Qwen/Qwen3-8B"]])
def test_a_base_that_only_the_card_names_is_marked(stated: object) -> None:
    row = facts(cardData={"base_model": stated}, baseModels=None, tags=[])
    assert row["base_models"] == "card: Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("card", "tags", "expected", "name"),
    [
        ({"license": "mit"}, ["license:apache-2.0"], "mit", None),
        (None, ["license:mit"], "mit", None),
        ({"license": "other", "license_name": "kimi-k3"}, [], "kimi-k3", "kimi-k3"),
        ({"license": "mit", "license_name": "kimi-k3"}, [], "mit", None),
        ({"license": "other"}, [], "other", None),
        ({"license": ["mit", "apache-2.0"]}, [], "mit, apache-2.0", None),
        ({"license": {"mit": 1}, "license_name": 3}, [], None, None),
        ({"license": "other", "license_name": "a; size: b"}, [], "a, size: b", "a, size: b"),
    ],
)
def test_license_on_hub(
    card: object, tags: list[str], expected: str | None, name: str | None
) -> None:
    row = facts(cardData=card, tags=tags)
    assert (row["license_on_hub"], row["license_name"]) == (expected, name)


def listed(*names: str) -> list[dict[str, str]]:
    return [{"rfilename": name} for name in names]


@pytest.mark.parametrize(
    ("changes", "formats", "remote_code"),
    [
        ({"siblings": listed("q4/m.gguf", "pytorch_model.bin")}, "gguf;pickle", False),
        ({"siblings": listed("m.safetensors", "modeling_x.py")}, "safetensors", True),
        ({"siblings": listed("a.safetensors"), "config": {"auto_map": {"A": "b"}}}, None, True),
        ({"siblings": []}, "", False),
        ({"siblings": None}, None, None),
        ({"siblings": listed("a.gguf"), "config": None}, "gguf", None),
        ({"siblings": [3, {"rfilename": [1]}, None], "config": []}, "", None),
    ],
)
def test_formats_and_remote_code(
    changes: dict[str, Any], formats: str | None, remote_code: object
) -> None:
    row = facts(**changes)
    assert formats is None or row["formats"] == formats
    assert row["remote_code"] is remote_code


def test_remote_code_is_found_in_config_json_too() -> None:
    plain = {"siblings": listed("a.safetensors"), "config": None}
    assert (
        facts(config_json=CONFIG | {"auto_map": {"AutoModel": "x.Y"}}, **plain)["remote_code"]
        is True
    )
    assert facts(config_json=CONFIG, **plain)["remote_code"] is False


def sized(**sizes: Any) -> dict[str, Any]:
    return {"siblings": [{"rfilename": n.replace("__", "/"), "size": s} for n, s in sizes.items()]}


G = 1_000_000_000


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"model-1.safetensors": 9 * G, "model-2.safetensors": 7 * G, "README.md": 9}, 16.0),
        ({"model.safetensors": 2 * G, "consolidated.safetensors": 2 * G}, 2.0),
        ({"model.safetensors": 2 * G, "pytorch_model.bin": 2 * G}, 2.0),
        ({"model.safetensors": 2 * G, "original__model.safetensors": 2 * G}, 2.0),
        ({"adapter_model.safetensors": G}, 1.0),
        ({"unet__a.safetensors": G, "vae__b.safetensors": G}, 2.0),
        ({"pytorch_model.bin": G, "training_args.bin": 4000}, 1.0),
        ({"m-Q4.gguf": G}, 1.0),
        ({"m-Q4.gguf": G, "mmproj-f16.gguf": G}, 1.0),
        ({"m-Q4-00001-of-00002.gguf": G, "m-Q4-00002-of-00002.gguf": G}, 2.0),
        ({"m-Q4.gguf": G, "m-Q8.gguf": 2 * G}, None),
        ({"model-1.safetensors": G, "model-2.safetensors": None}, None),
        ({"model-1.safetensors": True}, None),
        ({"model-1.safetensors": -1}, None),
        ({"README.md": 3}, None),
        ({}, None),
    ],
)
def test_size_of_one_copy_of_the_weights(sizes: dict[str, Any], expected: float | None) -> None:
    assert facts(sized(**sizes))["weights_gb"] == expected


@pytest.mark.parametrize(
    ("status", "verdict", "issues"),
    [
        ({"scansDone": True, "filesWithIssues": []}, "clean", None),
        ({"scansDone": False, "filesWithIssues": []}, "unknown", None),
        ({"filesWithIssues": []}, "unknown", None),
        ({"scansDone": "true", "filesWithIssues": []}, "unknown", None),
        ({"scansDone": True}, "unknown", None),
        ({"scansDone": True, "filesWithIssues": "none"}, "unknown", None),
        ({"scansDone": True, "filesWithIssues": [3]}, "issues", None),
        (
            {"scansDone": True, "filesWithIssues": [{"path": "a.bin", "level": "unsafe"}]},
            "issues",
            "a.bin (unsafe)",
        ),
        (
            {"scansDone": False, "filesWithIssues": [{"path": "a;b\n.pt"}, {"path": "c"}]},
            "issues",
            "a,b .pt (not rated); c (not rated)",
        ),
        ("clean", None, None),
        (None, None, None),
        ([], None, None),
    ],
)
def test_security(status: object, verdict: str | None, issues: str | None) -> None:
    row = facts(files("acme/large", securityRepoStatus=status))
    assert (row["security"], row["security_issues"]) == (verdict, issues)


def test_many_security_issues_are_counted() -> None:
    found = [{"path": f"f{i}.bin", "level": "unsafe"} for i in range(25)]
    row = facts(files("x", securityRepoStatus={"scansDone": True, "filesWithIssues": found}))
    assert row["security_issues"].count("; ") == 20
    assert row["security_issues"].endswith("; and 5 more")


def test_sizes_as_the_hub_counts_them() -> None:
    row = facts(
        safetensors={"parameters": {"BF16": 10, "F8_E4M3": 20, "a b": 3, "I8": "x"}, "total": 30},
        gguf={"total": 11_765_788_416},
    )
    assert row["params_by_dtype"] == "BF16:10;F8_E4M3:20"
    assert (row["params_b"], row["gguf_params_b"]) == (30 / 1e9, 11.765788416)


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_wrong_types_give_null_fields(junk: Any) -> None:
    row = facts(dict.fromkeys(files("x"), junk), **dict.fromkeys(model("x"), junk))
    assert row["revision"] is None and "no revision" in row["problem"]
    assert row["gated"] in (None, "yes")
    assert row["downloads"] == (3 if junk == 3 and junk is not True else None)
    assert row["security"] in (None, "unknown") and row["weights_gb"] is None
    assert row["created_at"] is row["last_modified"] or junk == "x"
    inner = {"total": junk, "context_length": junk, "license": junk, "license_name": junk}
    inner |= {"models": junk, "auto_map": junk, "parameters": junk, "tokenizer_config": junk}
    for field in ("safetensors", "gguf", "cardData", "config", "siblings", "tags", "baseModels"):
        assert facts({"siblings": [inner, junk]}, **{field: inner})["revision"] == SHA
    assert model_info.metadata_row(ROW, {"model": {"answer": junk}})["license_on_hub"] is None


def test_hostile_text() -> None:
    name = "ok\x1b[31m\x00\u202e\ud800\n<script>alert(1)</script>" + "x" * 500
    row = facts(
        cardData={"license": "other", "license_name": name},
        sha="../" * 20,
        id="../../../etc/passwd",
        createdAt="yesterday\n",
        lastModified="2026-10-01T12:00:00.000Z; drop",
    )
    for field in ("license_on_hub", "license_name"):
        assert row[field].startswith("ok <script>") and len(row[field]) == 200
        assert row[field].isprintable()
    assert row["revision"] is row["renamed_to"] is row["created_at"] is row["last_modified"] is None


def routing(listed: object) -> dict[str, Any]:
    return {"answer": listed, "retrieved_at": "now"}


def served(mapping: object, on_router: object = None) -> list[dict[str, Any]]:
    page = {"answer": {"inferenceProviderMapping": mapping}, "retrieved_at": "then"}
    listed = {"data": [{"id": "acme/large", "providers": on_router}]}
    return list(model_info.offers({"acme/large": {"model": page}}, routing(listed)))


def test_offers_of_the_page_and_of_the_router() -> None:
    rows = {row["provider"]: row for row in served(model("x")["inferenceProviderMapping"],
                                                   ROUTED["providers"])}  # fmt: skip
    assert list(rows) == ["together", "fal-ai", "novita"]
    assert rows["together"] == {
        "repo_id": "acme/large",
        "provider": "together",
        "status": "live",
        "retrieved_at": "now",
        "context_length": 65536,
        "input_usd_per_million": 0.6,
        "output_usd_per_million": 1.8,
        "first_token_latency_ms": 320.5,
        "throughput_tps": 88.2,
    }
    assert rows["novita"]["input_usd_per_million"] is None
    assert (rows["fal-ai"]["status"], rows["fal-ai"]["retrieved_at"]) == ("staging", "then")


def test_offers_of_wrong_types() -> None:
    pricing = {"input": -1, "output": float("nan")}
    odd = {"provider": "odd", "pricing": pricing, "throughput": True, "context_length": 10**40}
    cheap = {"provider": "odd2", "pricing": {"input": 0, "output": "0.1"}}
    rows = served(
        [{"provider": "groq"}, "x", {"status": "live"}, {"provider": "../x"}], [odd, cheap]
    )
    assert [row["provider"] for row in rows] == ["groq", "odd", "odd2"]
    assert {key: value for key, value in rows[1].items() if value is not None} == {
        "repo_id": "acme/large",
        "provider": "odd",
        "retrieved_at": "now",
    }
    assert rows[2]["input_usd_per_million"] == 0.0 and rows[2]["output_usd_per_million"] is None
    for junk in JUNK:
        assert isinstance(served(junk, junk), list)
        for listed in (junk, {"data": junk}):
            assert list(model_info.offers({"acme/large": {}}, routing(listed))) == []


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (model("x")["inferenceProviderMapping"], "together;novita"),
        ([{"provider": "groq", "status": "live"}, "x", {"status": "live"}], "groq"),
        ([], ""),
        (None, None),
        ("together", None),
    ],
)
def test_live_providers(mapping: object, expected: str | None) -> None:
    assert facts(inferenceProviderMapping=mapping)["providers"] == expected
