"""The shipped tables: complete, sorted, sourced, and refused when doctored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

DATA = Path(__file__).resolve().parents[1] / "data"

COLUMNS = {
    "models": "repo_id,family,developer,country,license,hub_license,total_params_b,"
    "active_params_b,hub_params_b,context_length,layers,kv_heads,head_dim,quantization,file_gb,kv_layout,modality,base_model,"
    "former_names,listed_for,released,note,source_url,source,hub_revision,hub_checked_on,checked_on",
    "licenses": "license,full_name,hub_license,hub_license_name,license_class,commercial_use,"
    "conditions,agreement_mau,agreement_revenue_usd,agreement_revenue_months,agreement_scope,"
    "agreement_at,agreement_exempt,display_mau,display_revenue_usd,display_revenue_months,display_text,"
    "name_prefix,derivatives,attribution,services_excluded,untestable,territories_excluded,"
    "territory_scope,output_training,acceptable_use_policy,read,text_date,text_sha256,source_url,"
    "source,checked_on",
    "clauses": "license,obligation,section,reading,source_url,source,checked_on",
    "published_scores": "repo_id,benchmark,score,unit,kind,verified,variant,note,source_url,"
    "checked_on",
    "closed_models": "closed_model,provider,tier,basis,source_url,checked_on",
    "hardware": "hardware,devices,device,memory_gb,usable_gb,bandwidth_gb_s,power_w,"
    "spec_source_url,usd_per_hour,price_basis,note,source_url,checked_on",
    "memory_measurements": "repo_id,engine,weights_dtype,kv_dtype,tensor_parallel,weights_gib,"
    "kv_gib,kv_tokens,layers,kv_heads,head_dim,kv_layout,note,source_url,checked_on",
}
KEYS = {
    "models": ["repo_id"],
    "licenses": ["license"],
    "clauses": ["license", "obligation"],
    "published_scores": ["benchmark", "repo_id", "variant"],
    "closed_models": ["closed_model"],
    "hardware": ["hardware"],
    "memory_measurements": ["repo_id", "engine", "kv_gib"],
}
NUMBERS = {
    "models": "total_params_b active_params_b hub_params_b context_length layers kv_heads head_dim",
    "licenses": "agreement_mau agreement_revenue_usd agreement_revenue_months display_mau "
    "display_revenue_usd display_revenue_months",
    "clauses": "",
    "published_scores": "score",
    "closed_models": "",
    "hardware": "devices memory_gb usable_gb bandwidth_gb_s power_w usd_per_hour",
    "memory_measurements": "tensor_parallel weights_gib kv_gib kv_tokens layers kv_heads head_dim",
}
SERVICES = {"model-as-a-service", "ai-assistant", "redistribution"}
CHOICES = {
    "models": {"modality": {"", "text", "multimodal"}},
    "licenses": {
        "license_class": {"permissive", "conditional", "non-commercial", "unknown"},
        "commercial_use": {"yes", "conditional", "no", "unknown"},
        "agreement_revenue_months": {"", "1", "12"},
        "agreement_at": {"", "above", "at-or-above"},
        "display_revenue_months": {"", "1", "12"},
        "territory_scope": {"", "any", "multimodal"},
        "output_training": {"free", "named", "derivative", "not-allowed", "unknown"},
        "acceptable_use_policy": {"yes", "no", "unknown"},
        "read": {"full text", "partly", "second-hand", "not read"},
    },
    "clauses": {},
    "published_scores": {"kind": {"independent", "self-reported"}},
    "closed_models": {"tier": {"low", "medium", "high"}},
    "hardware": {"price_basis": {"", "list price", "assumed"}},
    "memory_measurements": {"kv_dtype": {"bf16", "fp16", "fp8"}},
}
FAMILIES = {"DeepSeek", "Kimi", "Qwen", "GLM", "Llama", "Gemma", "Mistral"}
ARTICLE = {
    "deepseek-ai/DeepSeek-V3.2",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "mistralai/Ministral-3-3B-Instruct-2512",
}
EMBEDDED = {"google/gemma-3-270m", "HuggingFaceTB/SmolLM2-135M-Instruct"}


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"{name}.csv", dtype=str, keep_default_na=False)


def number(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column.replace("", None))


def sort_key(name: str, row: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    folded = tuple(part.lower() for part in row) if name == "models" else row
    return folded, row


def dated(text: str) -> bool:
    try:
        return date.fromisoformat(text) <= date.today()
    except ValueError:
        return False


def form_problems(name: str, table: pd.DataFrame) -> list[str]:
    """What is wrong with keys, order, sources, dates and choices."""
    keys = list(table[KEYS[name]].itertuples(index=False, name=None))
    found = ["duplicate key"] if len(set(keys)) < len(keys) else []
    if keys != sorted(keys, key=lambda row: sort_key(name, row)):
        found.append("not sorted")
    if not table["source_url"].str.match(r"https://\S+$").all():
        found.append("no source_url")
    if not table["checked_on"].map(dated).all():
        found.append("bad checked_on")
    for column, allowed in CHOICES[name].items():
        found += [f"{column} {value!r}" for value in sorted(set(table[column]) - allowed)]
    return found


def model_problems(table: pd.DataFrame, licenses: pd.DataFrame) -> list[str]:
    """What is wrong with licence keys and sizes."""
    found = [
        f"unknown licence {key!r}"
        for key in sorted({key for cell in table.license for key in cell.split(" AND ")})
        if key not in {*licenses.license, ""}
    ]
    total, active = number(table.total_params_b), number(table.active_params_b)
    hub = number(table.hub_params_b)
    if (active > total).any() or (active.notna() & total.isna() & hub.isna()).any():
        found.append("active exceeds total")
    apart = (hub - total).abs() > 0.1 * total
    if not table.note[apart].str.contains("sources disagree").all():
        found.append("unmarked disagreement")
    return found


@pytest.mark.parametrize("name", COLUMNS)
def test_table_is_well_formed(name: str) -> None:
    table = read(name)
    assert ",".join(table.columns) == COLUMNS[name]
    assert form_problems(name, table) == []


@pytest.mark.parametrize("name", COLUMNS)
def test_file_is_plain(name: str) -> None:
    text = (DATA / f"{name}.csv").read_bytes().decode("utf-8")
    assert "\r" not in text and text.endswith("\n")
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert "../" not in text


@pytest.mark.parametrize("name", COLUMNS)
def test_numbers_are_not_negative(name: str) -> None:
    table = read(name)
    for column in NUMBERS[name].split():
        values = number(table[column]).dropna()
        assert (values >= 0).all(), column
        if name in {"models", "hardware"}:
            assert (values > 0).all(), column


def test_models_resolve() -> None:
    assert model_problems(read("models"), read("licenses")) == []


def test_catalogue_is_wide() -> None:
    models = read("models")
    size = number(models.total_params_b).fillna(number(models.hub_params_b))
    assert len(models) >= 250
    assert models.developer.nunique() >= 25
    assert models.family.value_counts().reindex(sorted(FAMILIES)).min() >= 10
    assert size.min() < 0.2 and size.max() > 2000
    assert {*EMBEDDED, *ARTICLE} <= set(models.repo_id)


def test_most_rows_have_licence_and_country() -> None:
    models = read("models")
    assert ((models.license != "") & (models.country != "")).mean() >= 0.95
    assert (
        number(models.total_params_b).notna() | number(models.hub_params_b).notna()
    ).mean() > 0.95


def test_embedded_models_have_what_the_default_needs() -> None:
    models = read("models").set_index("repo_id")
    gemma = models.loc["google/gemma-3-270m"]
    smollm = models.loc["HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert (gemma.license, gemma.country) == ("gemma", "United States")
    assert (smollm.license, smollm.total_params_b) == ("apache-2.0", "0.135")


def test_developers_and_families_are_spelled_once() -> None:
    models = read("models")
    for column in ("developer", "family", "country"):
        names = set(models[column]) - {""}
        assert len({name.lower() for name in names}) == len(names), column
    assert (models.groupby("developer").country.nunique() == 1).all()


def test_rows_listed_for_lineage_are_the_base_of_something() -> None:
    models = read("models")
    bases = {part.strip() for cell in models.base_model for part in cell.split(";")} - {"none"}
    listed = models[models.listed_for == "lineage"]
    assert len(listed) >= 10 and set(listed.repo_id) <= bases
    assert (listed.license != "").all() and (listed.country != "").all()


def test_same_hub_name_may_be_two_texts() -> None:
    models = read("models").set_index("repo_id").license
    assert models["moonshotai/Kimi-K2-Instruct"] != models["MiniMaxAI/MiniMax-M2"]
    assert models["MiniMaxAI/MiniMax-M2"] != models["MiniMaxAI/MiniMax-M2.5"]


def test_thresholds_are_complete() -> None:
    licenses = read("licenses")
    revenue = licenses.agreement_revenue_usd != ""
    limited = revenue | (licenses.agreement_mau != "")
    assert (licenses.agreement_revenue_months != "")[revenue].all()
    assert (licenses.agreement_scope != "")[limited].all()
    assert (licenses.agreement_at != "")[limited].all()
    assert ((licenses.display_revenue_usd != "") == (licenses.display_revenue_months != "")).all()
    assert (licenses.display_text != "")[licenses.display_mau != ""].all()
    assert ((licenses.territories_excluded != "") == (licenses.territory_scope != "")).all()
    scopes = {part for scope in licenses.agreement_scope for part in scope.split(";")}
    services = {part for scope in licenses.services_excluded for part in scope.split(";")}
    assert scopes <= {"", "any", *SERVICES} and services <= {"", *SERVICES}


def test_unread_licences_are_never_permissive() -> None:
    licenses = read("licenses")
    unread = licenses.read.isin(["not read", "second-hand"])
    assert "permissive" not in set(licenses.license_class[unread])
    assert (licenses.conditions != "").all()


def test_scores_belong_to_known_models() -> None:
    scores = read("published_scores")
    assert set(scores.repo_id) <= set(read("models").repo_id)
    refreshed = scores.note.str.startswith(("Hub eval results", "OpenEvals leaderboard"))
    assert scores[~refreshed].groupby("benchmark").repo_id.nunique().min() >= 8
    percent = number(scores.score[scores.unit == "percent"])
    assert percent.between(0, 100).all()


def test_hardware_leaves_room() -> None:
    hardware = read("hardware")
    assert (number(hardware.usable_gb) <= number(hardware.memory_gb)).all()
    assert hardware.note[hardware.price_basis == "assumed"].str.contains("assumption").all()
    assert ((hardware.usd_per_hour != "") == (hardware.price_basis != "")).all()


def test_twelve_kinds_of_accelerator_with_sourced_facts() -> None:
    hardware = read("hardware")
    accelerator = ~hardware.hardware.str.startswith("cpu-")
    assert hardware.device[accelerator].nunique() >= 12
    specified = (hardware.bandwidth_gb_s != "") | (hardware.power_w != "")
    assert hardware.spec_source_url[specified].str.match(r"https://\S+$").all()
    assert specified[accelerator].all() and (hardware.bandwidth_gb_s != "")[accelerator].all()
    stated = hardware.spec_source_url[hardware.spec_source_url != ""]
    assert stated.groupby(hardware.device).nunique().max() == 1


@pytest.mark.parametrize("column", ["memory_gb", "usable_gb", "bandwidth_gb_s", "power_w"])
def test_eight_devices_have_eight_times_what_one_has(column: str) -> None:
    hardware = read("hardware")
    each = (number(hardware[column]) / number(hardware.devices)).fillna(0)
    of_device = each.groupby(hardware.device)
    assert (of_device.max() - of_device.min() < 0.01).all()


def test_a_machine_is_named_after_its_devices() -> None:
    hardware = read("hardware")
    machines = hardware[~hardware.hardware.str.startswith("cpu-")]
    assert (machines.hardware.str.rsplit("-", n=1).str[-1] == machines.devices).all()
    several = machines[machines.note.str.contains(" times the single price")]
    single = machines[machines.devices == "1"].set_index("device").usd_per_hour
    price = number(several.device.map(single)) * number(several.devices)
    assert len(several) >= 10 and ((number(several.usd_per_hour) - price).abs() < 1e-6).all()


Change = Callable[[pd.DataFrame], pd.DataFrame]


def with_cell(column: str, value: str) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[3, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (with_cell("source_url", ""), "no source_url"),
        (with_cell("checked_on", "2999-01-01"), "bad checked_on"),
        (with_cell("checked_on", "last week"), "bad checked_on"),
        (with_cell("modality", "smell"), "modality 'smell'"),
        (with_cell("license", "no-such-text"), "unknown licence 'no-such-text'"),
        (with_cell("active_params_b", "9999999"), "active exceeds total"),
        (with_cell("hub_params_b", "9999999"), "unmarked disagreement"),
        (lambda table: table.iloc[::-1], "not sorted"),
        (lambda table: pd.concat([table, table.tail(1)]), "duplicate key"),
    ],
)
def test_doctored_row_is_refused(change: Change, problem: str) -> None:
    models = change(read("models"))
    found = form_problems("models", models) + model_problems(models, read("licenses"))
    assert problem in found
