"""The brief: what is valid, and one sentence with key and way out for what is not."""

from __future__ import annotations

import os
import re
import socket
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from briefs import BASE, brief, changed, load_project, write

from lib.brief.deployment import Host
from lib.brief.sections import Company, Policy
from lib.errors import PlaybookError
from lib.tables import DATA

EXCEPTION = {
    "model": "org/a",
    "lifts": "review",
    "approver": "General Counsel",
    "reason": "read on paper",
    "expires": "2027-06-30",
}


@pytest.mark.parametrize("name", ["article", "hosted-template", "review-sentiment"])
def test_shipped_briefs_load(name: str) -> None:
    project = load_project(name)
    assert project.name == name
    assert project.folder.name == name
    assert len({d.name for d in project.deployments}) == len(project.deployments) >= 1


def test_hosted_template_needs_no_key_and_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("called somebody")

    for name in list(os.environ):
        if name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    project = load_project("hosted-template")
    keys = [d.endpoint.api_key_env for d in project.deployments if d.endpoint]
    assert keys == [None]


def test_default_values(tmp_path: Path) -> None:
    project = brief(tmp_path)
    assert project.objective == "cheapest"
    assert project.requirements.slo_s == 2.0
    assert project.items_path == tmp_path.resolve() / "items.jsonl"
    assert not project.deployments[0].endpoint.local  # type: ignore[union-attr]
    assert project.deployments[1].endpoint.local  # type: ignore[union-attr]


def test_a_deployment_changes_only_its_own_words(tmp_path: Path) -> None:
    raw = changed("evaluation.prompt", {"system": "S", "user": "Review: {input}"})
    raw["deployments"][1]["prompt"] = {"answer": "Sentiment: {target}"}
    project = load_project(write(tmp_path, raw))
    first, second = (project.prompt_of(d) for d in project.deployments)
    assert (first.system, first.user, first.answer) == ("S", "Review: {input}", None)
    assert (second.system, second.user) == ("S", "Review: {input}")
    assert second.answer == "Sentiment: {target}"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("objectiv", "best", "unknown key 'objectiv'; did you mean 'objective'?"),
        ("policy.licences", ["mit"], "unknown key 'policy.licences'; did you mean 'licenses'?"),
        ("size.teir", "low", "unknown key 'size.teir'; did you mean 'tier'?"),
        (
            "deployments.1.hardwear",
            "x",
            "unknown key 'deployments.1.hardwear'; did you mean 'hardw",
        ),
        (
            "deployments.0.endpoint.api_key_enf",
            "X",
            "unknown key 'deployments.0.endpoint.api_key_enf'; did you mean 'api_key_env'?",
        ),
        (
            "deployments.0.price.usd_per_hr",
            1,
            "'deployments.0.price.usd_per_hr'; did you mean 'usd_",
        ),
        ("zzz", 1, "unknown key 'zzz'; known: candidates, company, deployments, evaluation,"),
        ("folder", "/etc", "unknown key 'folder'; remove it"),
        (
            "size.tier",
            "lw",
            "size.tier: Input should be 'low', 'medium', 'high' or 'any', not 'lw'",
        ),
        ("size.replaces", "gpt-5-nano", "size: give either tier or replaces, not both and not nei"),
        ("size", {}, "size: give either tier or replaces, not both and not neither"),
        ("policy.use", "fun", "policy.use: Input should be 'internal', 'product', 'model-as-a-ser"),
        ("policy.licenses", [], "policy.licenses: List should have at least 1 item"),
        ("policy", ["mit"], "policy: Input should be a valid dictionary"),
        ("name", "../../etc", "name: String should match pattern"),
        ("name", "..", "name: String should match pattern"),
        ("name", "a/b", "name: String should match pattern"),
        ("deployments.1.name", "a", "deployments: the name 'a' is used twice"),
        ("deployments", [], "deployments: List should have at least 1 item"),
        ("deployments.0.model", "just-a-name", "deployments.0.model: String should match pattern"),
        (
            "deployments.0.endpoint",
            None,
            "deployment 'a' needs endpoint for kind 'class",
        ),
        ("deployments.0.price", None, "deployments.0: 'a' needs a price, or hardware whose price"),
        (
            "evaluation.prompt",
            {"user": "Review:"},
            "evaluation.prompt.user: must contain a field of the items",
        ),
        ("evaluation.prompt", {"answer": "yes"}, "evaluation.prompt.answer: must contain {target}"),
        (
            "deployments.0.prompt",
            {"user": "x"},
            "deployments.0.prompt.user: must contain a field of the items",
        ),
        (
            "evaluation.shots",
            [{"input": "Good", "target": "positiv"}],
            "evaluation: shots: target 'positiv' is not one of ['positive', 'negative']",
        ),
        ("evaluation.labels", ["one"], "needs labels: at least two different ones"),
        ("evaluation.labels", ["a", "a"], "needs labels: at least two different ones"),
        ("evaluation.labels", ["Yes", "yes ", "no"], "labels: 'yes' is blank or there twice"),
        ("evaluation.labels", ["yes", "no", " "], "labels: '' is blank or there twice"),
        ("evaluation.items", "", "kind 'classification' needs items: the name of a file of items"),
        ("evaluation.max_tokens", 0, "evaluation.max_tokens: Input should be greater than or equ"),
        ("policy.host_country", "x", "'policy.host_country'; did you mean 'host_countries'?"),
        ("company.mau", 5, "unknown key 'company.mau'; known: domicile, monthly_active_users"),
        ("company.territories", "France", "company.territories: Input should be a valid list"),
        ("company.monthly_active_users", -1, "monthly_active_users: Input should be greater than"),
        ("company.monthly_active_users", 0.5, "monthly_active_users: Input should be a valid int"),
        ("company.services", ["saas"], "company.services.0: Input should be 'model-as-a-service',"),
        ("company.revenue", 5, "company.revenue: Input should be a valid dictionary"),
        (
            "company.revenue",
            {"amount": 5, "currency": "EUR", "period": "year"},
            "company.revenue.currency: convert the amount, licences count in USD, and write"
            " currency: USD instead of 'EUR'",
        ),
        (
            "company.revenue",
            {"amount": 5, "currency": "USD", "period": "quarter"},
            "company.revenue.period: Input should be 'month' or 'year', not 'quarter'",
        ),
        (
            "company.revenue",
            {"amount": -5, "currency": "USD", "period": "year"},
            "company.revenue.amount: Input should be greater than or equal to 0",
        ),
        ("company.revenue", {"amount": 5, "period": "year"}, "company.revenue.currency is missing"),
        ("exceptions", [EXCEPTION | {"lifts": "blocked"}], "lifts: Input should be 'review' or"),
        ("exceptions", [EXCEPTION | {"approver": ""}], "exceptions.0.approver: String should have"),
        ("exceptions", [EXCEPTION | {"expires": "soon"}], "exceptions.0.expires: Input should be"),
        ("exceptions", [{**EXCEPTION, "model": "name"}], "exceptions.0.model: String should match"),
        ("deployments.0.host", {"provider": "x"}, "deployments.0.host.country is missing"),
        ("requirements.min_quality", 85, "requirements.min_quality: Input should be less than or"),
        ("requirements.min_rps", 0, "requirements.min_rps: Input should be greater than 0, not 0"),
        ("requirements.min_rps", float("inf"), "requirements.min_rps: Input should be a finite"),
        ("requirements.max_p95_s", float("nan"), "requirements.max_p95_s: Input should be"),
    ],
)
def test_a_wrong_value_is_one_sentence(
    tmp_path: Path, where: str, value: Any, message: str
) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)) as caught:
        brief(tmp_path, where, value)
    assert str(caught.value).startswith(f"{tmp_path}/project.yaml: ")
    # Beside it stands what else is wrong with this brief: nobody knows its models.
    assert sum(message in line for line in str(caught.value).split("\n")) == 1


def test_missing_keys_are_named_and_counted(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"project\.yaml: task is missing$"):
        brief(tmp_path, without="task")
    with pytest.raises(PlaybookError, match=r"6 problems:\n- name is missing\n- task is missing\n"):
        load_project(write(tmp_path, {"objective": "best"}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_key_env", "sk-abcdef123456"),
        ("api_key_env", "together_api_key"),
        ("api_key_env", "abcdef123456"),
        ("base_url_env", "https://user:abcdef123456@host/v1"),
        ("base_url", "https://user:abcdef123456@host/v1"),
        ("base_url", "https://abcdef123456@host/v1"),
        ("base_url", "https://host/v1?api-version=2024-05-01-preview&sig=abcdef123456"),
        ("base_url", {"key": "abcdef123456"}),
    ],
)
def test_no_secret_is_taken_or_repeated(tmp_path: Path, key: str, value: Any) -> None:
    endpoint = {"base_url": "https://host/v1"} if key == "api_key_env" else {}
    with pytest.raises(PlaybookError, match=r"deployments\.0\.endpoint") as caught:
        brief(tmp_path, "deployments.0.endpoint", endpoint | {key: value})
    assert "abcdef123456" not in str(caught.value)
    assert "together_api_key" not in str(caught.value)


def test_a_secret_in_a_broken_brief_is_not_repeated(tmp_path: Path) -> None:
    text = 'name: tiny\ndeployments:\n  - {endpoint: {api_key: "sk-abcdef123456}}\n'
    with pytest.raises(PlaybookError, match=r"not valid YAML: line \d") as caught:
        load_project(write(tmp_path, text))
    assert "abcdef" not in str(caught.value)


def test_a_key_is_named_not_passed(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"api_key_env: name an environment variable, such as"):
        brief(tmp_path, "deployments.0.endpoint.api_key_env", "sk-1")


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({}, "give exactly one of embedded, gguf, base_url, base_url_env or recorded, not none"),
        ({"embedded": "smollm2-135m", "base_url": "http://h"}, "not embedded and base_url"),
        ({"gguf": "owner/name/file.gguf"}, "needs revision: the commit to pin"),
        ({"gguf": "file.gguf", "revision": "abc"}, "gguf is owner/name/file.gguf"),
        ({"base_url": "host/v1"}, "base_url must be http(s)://host/"),
        ({"base_url": "file:///etc/passwd"}, "base_url must be http(s)://host/"),
        ({"base_url": "https://host/v1\n"}, "base_url must be http(s)://host/"),
        ({"embedded": "smollm3"}, "Input should be 'gemma3-270m' or 'smollm2-135m'"),
    ],
)
def test_endpoints(tmp_path: Path, endpoint: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)):
        brief(tmp_path, "deployments.0.endpoint", endpoint)


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000/v1", "https://host", "http://[::1]:80/v1"])
def test_good_urls(tmp_path: Path, url: str) -> None:
    endpoint = brief(tmp_path, "deployments.0.endpoint", {"base_url": url}).deployments[0].endpoint
    assert endpoint is not None and endpoint.base_url == url


TOKENS = {"input_usd_per_million": 0, "output_usd_per_million": 1}


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ({}, "give one of usd_per_hour, token prices or provider"),
        ({"usd_per_hour": 1, "provider": "together"}, "give one of usd_per_hour, token prices"),
        ({"usd_per_hour": 1, **TOKENS}, "give one of usd_per_hour, token prices or provider"),
        ({"provider": "together", **TOKENS}, "give one of usd_per_hour, token prices or provider"),
        ({"input_usd_per_million": 1}, "give input_usd_per_million and output_usd_per_million tog"),
        ({"usd_per_hour": 0}, "usd_per_hour: Input should be greater than 0, not 0"),
        (
            {**TOKENS, "output_usd_per_million": -1},
            "output_usd_per_million: Input should be greate",
        ),
        ({"usd_per_hour": 1, "basis": "list price"}, "basis 'list price' needs source_url"),
        ({"usd_per_hour": float("inf")}, "usd_per_hour: Input should be a finite number"),
    ],
)
def test_price_combinations(tmp_path: Path, price: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)):
        brief(tmp_path, "deployments.0.price", price)


@pytest.mark.parametrize(
    "price",
    [
        TOKENS,
        {"provider": "together"},
        {"usd_per_hour": 1, "basis": "list price", "source_url": "https://x"},
    ],
)
def test_good_prices(tmp_path: Path, price: dict[str, Any]) -> None:
    found = brief(tmp_path, "deployments.0.price", price).deployments[0].price
    assert found is not None and found.model_dump(exclude_none=True).items() >= price.items()


def test_published_needs_the_published_section(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"'a' needs published for kind 'published'"):
        brief(tmp_path, "evaluation", {"kind": "published"})
    raw = changed("evaluation", {"kind": "published"})
    figures = {"quality": 0.9, "max_rps": 2, "source": "s", "checked_on": "2026-01-01"}
    for deployment in raw["deployments"]:
        deployment["published"] = figures
    assert load_project(write(tmp_path, raw)).evaluation.kind == "published"
    raw["deployments"][0]["published"] = {**figures, "quality": 1.2}
    with pytest.raises(PlaybookError, match=r"deployments\.0\.published\.quality"):
        load_project(write(tmp_path, raw))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty or not a mapping; start from data/projects/"),
        ("# only a comment\n", "empty or not a mapping"),
        ("- a\n- b\n", "empty or not a mapping"),
        ("just words", "empty or not a mapping"),
        ("name: [a\n", "not valid YAML: line 2: expected ',' or ']'"),
        ("name: a\n\tb: c\n", "not valid YAML: line 2"),
        ("name: 2026-13-45\n", "not valid YAML: month must be in 1..12"),
        ("name: \x00", "not valid YAML"),
        ("1: a\n", "the keys at the top must be words"),
        (b"name: caf\xe9\n", "not UTF-8 (byte 9); save it as UTF-8"),
        (
            "name: !!python/object/apply:os.system [id]\n",
            "not valid YAML: line 1: could not determ",
        ),
    ],
)
def test_unreadable_briefs(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)):
        load_project(write(tmp_path, content))


def test_where_briefs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    found = [load_project(path), load_project(str(path)), load_project(tmp_path)]
    found.append(load_project("project.yaml"))
    assert {project.folder for project in found} == {tmp_path.resolve()}
    with pytest.raises(PlaybookError, match=r"nowhere\.yaml: no such brief; known projects: art"):
        load_project(tmp_path / "nowhere.yaml")
    with pytest.raises(PlaybookError, match=r"no such brief"):
        load_project(tmp_path / "no" / "folder")


def test_unknown_project_names() -> None:
    with pytest.raises(
        PlaybookError, match=r"no project 'review-sentimant' in data/projects; did "
    ):
        load_project("review-sentimant")
    with pytest.raises(PlaybookError, match=r"known: article, .*hosted-template, review-sentiment"):
        load_project("qqq")
    for name in ("..", ".", ""):
        with pytest.raises(PlaybookError, match="no project"):
            load_project(name)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    project = load_project(
        path,
        policy__use="internal",
        policy__licenses="mit, apache-2.0,",
        policy__countries="France",
        evaluation__concurrency=3,
        requirements__min_quality=0.5,
        objective="best",
    )
    assert project.policy.model_dump() == {
        "licenses": ["mit", "apache-2.0"],
        "countries": ["France"],
        "host_countries": None,
        "denied_countries": [],
        "use": "internal",
    }
    assert (project.evaluation.concurrency, project.requirements.min_quality) == (3, 0.5)
    assert project.objective == "best"
    unchanged = load_project(path, policy__use="", objective="", evaluation__timeout_s=0.0)
    assert unchanged == load_project(path)


def test_a_company_and_its_exceptions(tmp_path: Path) -> None:
    raw = changed("company", {"revenue": {"amount": 5, "currency": "USD", "period": "year"}})
    raw["exceptions"] = [EXCEPTION]
    raw["deployments"][0]["host"] = {"provider": "Together AI", "country": "United States"}
    project = load_project(write(tmp_path, raw))
    company = project.company
    assert (company.monthly_active_users, company.services, company.domicile) == (None, None, None)
    assert company.revenue is not None and company.revenue.amount == 5
    assert project.exceptions[0].expires == date(2027, 6, 30)
    assert project.deployments[0].host is not None
    assert project.deployments[1].host is None


def test_tier_and_replaces_override_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    assert load_project(path, size__replaces="gpt-5").size.model_dump()["tier"] is None
    project = load_project("review-sentiment", size__tier="high")
    assert (project.size.tier, project.size.replaces) == ("high", None)


def test_wrong_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    with pytest.raises(
        PlaybookError, match="objective: Input should be 'cheapest', 'best' or 'fas"
    ):
        load_project(path, objective="cheap")
    with pytest.raises(PlaybookError, match="unknown key 'polcy'; did you mean 'policy'"):
        load_project(path, polcy__use="product")
    with pytest.raises(PlaybookError, match=r"unknown key 'policy\.used'; did you mean 'use'"):
        load_project(path, policy__used="product")
    broken = write(tmp_path, changed("policy", ["mit"]))
    with pytest.raises(PlaybookError, match="policy: Input should be a valid dictionary"):
        load_project(broken, policy__use="product")


def test_an_override_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    load_project(path, objective="best")
    assert yaml.safe_load(path.read_text()) == BASE


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("company", {"domicile": "Deutschland"}),
        ("company", {"territories": ["Germany", "Unted Kingdom"]}),
        ("policy", {"host_countries": ["Frnace"]}),
        ("policy", {"denied_countries": ["Rusia"]}),
        ("policy", {"countries": ["Frence"]}),
        ("policy", {"countries": [False]}),
        ("policy", {"denied_countries": ["ZZ"]}),
        ("policy", {"denied_countries": ["United Nations"]}),
    ],
)
def test_a_place_nobody_knows_is_refused(
    tmp_path: Path, section: str, value: dict[str, object]
) -> None:
    shipped = yaml.safe_load((DATA / "projects/article/project.yaml").read_text(encoding="utf-8"))
    raw = shipped | {section: (shipped.get(section) or {}) | value}
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(PlaybookError, match=f"{section}.*unknown place"):
        load_project(tmp_path)


@pytest.mark.parametrize("key", ["countries", "host_countries", "denied_countries"])
def test_lists_of_countries_are_kept_by_their_names(key: str) -> None:
    written = ["CN", "prc", "u.s.a.", "Holland", "Turkey", "hk"]
    policy = Policy.model_validate({key: written})
    names = ["China", "United States", "Netherlands", "Türkiye", "Hong Kong"]
    assert getattr(policy, key) == names
    union = getattr(Policy.model_validate({key: ["EU"]}), key)
    assert {"France", "Åland Islands"} <= {*union} and "United Kingdom" not in union


@pytest.mark.parametrize(
    "region", ["Asia", "Western Europe", "Europe", "EMEA", "worldwide", "Latin America", " "]
)
def test_a_region_is_no_list_of_countries_and_no_country(region: str) -> None:
    for key in ("countries", "host_countries", "denied_countries"):
        with pytest.raises(ValueError, match="is no list of countries: name them, or one of"):
            Policy.model_validate({key: ["France", region]})
    for vague in (region, "EU", "Eurozone"):
        with pytest.raises(ValueError, match="is not one country: write which one"):
            Host.model_validate({"provider": "x", "country": vague})


def test_places_of_the_company_may_be_regions() -> None:
    company = Company.model_validate({"domicile": "de", "territories": ["UK", "EMEA", "world"]})
    assert company.domicile == "Germany"
    assert company.territories == ["United Kingdom", "EMEA", "Worldwide"]
