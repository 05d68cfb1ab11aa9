"""Counsel's page: complete, in order, and safe whatever the tables and the brief say."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import changed, load_project, write
from test_report import EVIL, Page, luminance

from lib import tables
from lib.brief.project import Project
from lib.legal import counsel
from lib.legal import verdicts as legal
from lib.pages.page import MANY, counsel_page

TODAY = date(2026, 11, 23)
HUB = "https://huggingface.co/"
LLAMA, GEMMA = "meta-llama/Llama-4-Maverick-17B-128E-Instruct", "google/gemma-3-27b-it"
COMPANY = {
    "domicile": "Germany",
    "territories": ["Germany", "United Kingdom"],
    "monthly_active_users": 5_000_000,
    "revenue": {"amount": 15_000_000, "currency": "USD", "period": "year"},
    "services": [],
    "outputs_train_models": False,
}


def exception(**changes: Any) -> dict[str, Any]:
    return {
        "model": GEMMA, "lifts": "conditional", "approver": "A. Counsel", "reason": "LEG-142",
        "expires": "2027-10-01",
    } | changes  # fmt: skip


def brief(folder: Path, company: Any = COMPANY, **changes: Any) -> Project:
    raw = changed("policy", {"licenses": ["permissive", "conditional"], "use": "product"})
    raw["deployments"][0] |= {"model": LLAMA, "host": {"provider": "Acme", "country": "Ireland"}}
    raw["deployments"][1] |= {"model": GEMMA}
    return load_project(write(folder, raw | {"company": company} | changes))


def render(given: Project, models: Any = None, texts: Any = None) -> str:
    models = tables.models() if models is None else models
    texts = tables.licenses() if texts is None else texts
    judged = legal.judge(models, texts, given, today=TODAY)
    found = legal.findings(models, texts, given)
    return counsel_page(counsel.for_counsel(judged, found, texts, given, today=TODAY))


def part(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}">')
    end = html.find("<section id=", start + 1)
    return html[start : end if end > 0 else len(html)]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def links(html: str) -> list[str]:
    return re.findall(r'href="([^"]*)"', html)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    given = brief(tmp_path_factory.mktemp("rich"), exceptions=[exception()])
    return given, render(given)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(brief(tmp_path_factory.mktemp("bare"), company={}))


@pytest.mark.parametrize("text", EVIL)
def test_hostile_text_stays_text(text: str, tmp_path: Path) -> None:
    columns = ["developer", "country", "license", "base_model", "repo_id"]
    some = tables.models().query("license == 'gemma'").head(3)
    every = pd.concat([some, some.head(1).assign(**dict.fromkeys(columns, text))])
    every = pd.concat([every, some.tail(1).assign(developer=text, repo_id="a/b", country=text)])
    told = ["full_name", "conditions", "source", "source_url", "checked_on"]
    texts = tables.licenses().query("license == 'gemma'").assign(**dict.fromkeys(told, text))
    raw = changed("policy", {"licenses": ["gemma"], "use": "product"})
    raw |= {"task": text, "exceptions": [exception(model="a/b", approver=text, reason=text)]}
    raw["company"] = COMPANY  # its places are checked when the brief is read
    raw["deployments"][0] |= {"model": "a/b", "host": {"provider": text, "country": "Ireland"}}
    raw["deployments"] = raw["deployments"][:1]
    html = render(load_project(write(tmp_path, raw)), every, texts)
    seen = Page(html)
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"script", "iframe", "link", "object", "embed", "form", "base", "img"}
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)
    assert all(str(a["href"]).startswith(HUB) for a in seen.all("a"))
    assert "{{" not in text or seen.text.count("{{7*7}}{% raw %}") > 10
    assert "\u202e" not in html


def test_nothing_is_loaded_and_only_web_addresses_are_links(rich: tuple[Project, str]) -> None:
    seen = Page(rich[1])
    policy = next(m["content"] for m in seen.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    for _, attributes in seen.tags:
        assert not {"src", "srcset", "action", "poster", "background", "style"} & set(attributes)
    assert all(re.match("https?://", str(a["href"])) for a in seen.all("a"))
    assert not re.search(r"url\(|@import", rich[1])


def test_a_script_address_as_a_source_is_not_linked(tmp_path: Path) -> None:
    texts = tables.licenses().assign(source_url="javascript:alert(1)")
    html = render(brief(tmp_path), texts=texts)
    assert "javascript:alert(1)" in html and "javascript" not in " ".join(links(html))


def test_it_says_first_that_it_is_no_legal_advice(rich: tuple[Project, str]) -> None:
    text = Page(rich[1]).text
    titles = ["Not legal advice", "Facts tested", "Models of the deployments", "Other models, by"]
    places = [text.index(title) for title in [*titles, "Exceptions", "Sign-off"]]
    assert places == sorted(places)
    assert "tiny · 2026-11-23" in text and "Task: Sort reviews" in text


def test_the_deployed_models_come_first_with_every_clause(rich: tuple[Project, str]) -> None:
    given, html = rich
    models = part(html, "deployments")
    hub = [link.removeprefix(HUB) for link in links(models) if link.startswith(HUB)]
    assert hub == [LLAMA, GEMMA]
    assert html.index(f'href="{HUB}') == html.index(f'href="{HUB}{LLAMA}"')
    text = words(models)
    for wanted in (
        "Meta", "United States", "llama4", "✗ blocked", "domicile: Germany", "Acme", "Ireland",
        "runs on our own machine", "read in full", "exception by A. Counsel until 2027-10-01",
    ):  # fmt: skip
        assert wanted in text, wanted
    section = "Section 2: Who had more than 700 million monthly users in the month before"
    assert re.search(
        rf"700M monthly users {section} [^✓]{{,60}}not reached: [^✓]{{,40}} ✓ met", text
    )
    assert "text of 2025-04-05" in text and re.search(r"SHA-256 of its words [0-9a-f]{12}", text)
    outcomes = [counsel.outcome(f) for f in legal.findings(*shipped(), given)[LLAMA]]
    assert len(outcomes) == models[: models.index(GEMMA)].count("<tr><td>")
    shown = re.findall(r'class="mark[^>]*>.. ?(\w+)', models[: models.index(GEMMA)])[1:]
    assert shown == sorted(shown, key=counsel.OUTCOMES.index)


def shipped() -> tuple[pd.DataFrame, pd.DataFrame]:
    return tables.models(), tables.licenses()


def test_a_host_outside_the_policy_and_one_not_given_are_said(tmp_path: Path) -> None:
    policy = {"licenses": ["permissive", "conditional"], "host_countries": ["France"]}
    given = brief(tmp_path, policy=policy | {"use": "product"})
    assert "✗ blocked : its host Acme is in Ireland" in words(part(render(given), "deployments"))
    bare_host = given.deployments[0].model_copy(update={"host": None})
    html = render(given.model_copy(update={"deployments": [bare_host]}))
    assert "not given not given ✗ blocked : its host is not in the brief" in words(html)


@pytest.mark.parametrize("company", [COMPANY, {}])
def test_every_other_conditional_and_review_model_is_listed_once(
    company: Any, tmp_path: Path
) -> None:
    given = brief(tmp_path, company)
    judged = legal.judge(*shipped(), given, today=TODAY)
    listed = re.findall(rf'<th scope="row"><a href="{HUB}([^"]+)"', part(render(given), "texts"))
    open_ = judged[judged["verdict"].isin(["conditional", "review"])]["repo_id"]
    assert sorted(listed) == sorted(set(open_) - {LLAMA, GEMMA})


def test_no_finding_is_lost_between_a_section_and_its_models(bare: str, tmp_path: Path) -> None:
    given = brief(tmp_path, {})
    found = legal.findings(*shipped(), given)
    for section in part(bare, "texts").split('<section class="text">')[1:]:
        clauses, _, models = section.partition("<details")
        for row in models.split('<tr><th scope="row">')[1:]:
            repo_id = links(row)[0].removeprefix(HUB)
            shown = clauses.count("<tr><td>") + row.count("<li>")
            assert shown == len(set(found[repo_id])), repo_id


def test_sections_with_review_come_first_and_say_how_the_text_was_read(bare: str) -> None:
    heads = re.findall(r"<h3>(.*?)</h3>", part(bare, "texts"))[:-1]
    reviews = [" review" in head for head in heads]
    assert reviews == sorted(reviews, reverse=True) and len(set(heads)) == len(heads)
    text = words(part(bare, "texts"))
    for wanted in ("read in full , checked on 2", "read in part", "not read", "known second-hand"):
        assert wanted in text, wanted
    assert "https://github.com/deepseek-ai/DeepSeek-V3/blob/9b4e978/LICENSE-MODEL" in links(bare)


def test_relabelled_models_stand_with_the_text_of_their_base(rich: tuple[Project, str]) -> None:
    section = next(s for s in rich[1].split('<section class="text">') if "<h3>mit:" in s)
    assert "relabelled: tagged mit" in words(section)
    assert "Text of a base model, Llama 3.3 Community License: read in full" in words(section)


def test_long_lists_are_folded(rich: tuple[Project, str]) -> None:
    folds = re.findall(r"<details( open)?><summary>(\d+) models? under", rich[1])
    assert {bool(is_open) == (int(count) <= MANY) for is_open, count in folds} == {True}
    assert {bool(is_open) for is_open, _ in folds} == {True, False}


def test_facts_that_nobody_gave_are_shown_as_such(bare: str, rich: tuple[Project, str]) -> None:
    facts = words(part(bare, "facts"))
    assert facts.count("not given") == 7
    assert re.search(r"Seat of the company not given ; \d+ models? in review for want of it", facts)
    assert "company.monthly_active_users: not given ? review" in words(part(bare, "deployments"))
    assert "Countries of hosts accepted no limit" in facts and "Countries denied none" in facts
    facts = words(part(rich[1], "facts"))
    assert facts.count("not given") == 1  # publishes_derivatives
    assert "USD 15,000,000 a year" in facts and "5,000,000" in facts
    assert "Services run none" in facts and "Outputs train other models no" in facts


def test_blank_facts_are_not_given_either(tmp_path: Path) -> None:
    html = render(brief(tmp_path, COMPANY | {"domicile": " ", "territories": [" "]}))
    assert words(part(html, "facts")).count("not given") == 3
    html = render(brief(tmp_path, COMPANY | {"territories": []}))
    assert "Territories served not given" in words(part(html, "facts"))


def test_blocked_models_are_counted_not_listed(rich: tuple[Project, str]) -> None:
    given, html = rich
    judged = legal.judge(*shipped(), given, today=TODAY)
    blocked = set(judged[judged["verdict"] == "blocked"]["repo_id"]) - {LLAMA, GEMMA}
    assert f"{len(blocked)} blocked models are not listed; by rule" in words(html)
    assert not blocked & {link.removeprefix(HUB) for link in links(part(html, "texts"))}
    assert "territory" in words(html) and "licence not accepted" in words(html)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "✓ running lifts the verdict from conditional"),
        ({"expires": "2026-12-24"}, "? expiring: 31 days left lifts the verdict"),
        ({"expires": "2026-11-23"}, "✗ expired without effect, it has run out"),
        ({"lifts": "review"}, "✓ running without effect, the verdict is conditional"),
        ({"model": LLAMA}, "✓ running without effect, blocked is never lifted"),
        ({"model": "org/nobody"}, "without effect, not in data/models.csv"),
    ],
)
def test_exceptions_say_whether_they_still_run(
    changes: dict[str, Any], state: str, tmp_path: Path
) -> None:
    html = render(brief(tmp_path, exceptions=[exception(**changes)]))
    assert state in words(part(html, "exceptions"))


def test_nobody_signs_for_the_baseline(tmp_path: Path) -> None:
    """A closed model of today is compared with; an open one is among the other models."""
    raw = changed("policy", {"licenses": ["permissive", "conditional"], "use": "product"})
    raw["deployments"][0] |= {"model": "openai/gpt-closed", "baseline": True}
    raw["deployments"][1] |= {"model": GEMMA}
    html = render(load_project(write(tmp_path, raw)))
    assert "gpt-closed" not in html and "1 deployed model," in words(html)
    raw["deployments"][0] |= {"model": LLAMA}
    html = render(load_project(write(tmp_path, raw)))
    assert LLAMA not in part(html, "signature") and LLAMA not in part(html, "deployments")
    # the same model as a candidate is signed for, by the candidate's host alone
    raw["deployments"][0] |= {"model": GEMMA}
    html = render(load_project(write(tmp_path, raw)))
    assert words(part(html, "signature")).count(GEMMA) == 1
    hosts = part(html, "deployments")
    assert '<th scope="row">b</th>' in hosts and '<th scope="row">a</th>' not in hosts


def test_the_sign_off_cells_are_empty(rich: tuple[Project, str]) -> None:
    table = part(rich[1], "signature")
    rows = table.split("<tr>")[2:]
    assert [words(row).split()[0] for row in rows] == [LLAMA, GEMMA]
    assert all(re.findall(r"<td>(.*?)</td>", row) == [""] * 7 for row in rows)
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert heads[1:4] == ["Accept", "Accept with conditions", "Refuse"]
    assert heads[4:] == ["Conditions", "Name and role", "Date", "Signature"]


def test_the_page_is_accessible(rich: tuple[Project, str]) -> None:
    seen = Page(rich[1])
    assert seen.all("html") == [{"lang": "en"}]
    assert all(th.get("scope") in ("col", "row") for th in seen.all("th"))
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and set(levels) == {1, 2, 3}
    schemes = re.findall(r":root \{([^}]+)\}", rich[1])
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ink in ("ink", "soft", "link", "good", "bad", "open"):
            for ground in ("page", "card"):
                pair = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)


def test_a_text_of_two_licences_names_both(tmp_path: Path) -> None:
    models = tables.models()
    models.loc[models["repo_id"] == LLAMA, "license"] = "(Apache-2.0 AND kimi-k3) OR MIT"
    html = render(brief(tmp_path), models)
    block = words(html[html.index(f"{LLAMA}</a>") : html.index(f"{GEMMA}</a>")])
    for name in ("Apache License 2.0", "MIT License", "Kimi K3 License"):
        assert f"{name}: " in block, name
