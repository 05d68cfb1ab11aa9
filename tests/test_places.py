"""Places: however one is spelt it has one name, and what may overlap a territory does."""

from __future__ import annotations

import pytest
from babel.core import get_global

from lib import places, tables


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("China", "CN cn CHN china CHINA PRC"),
        ("United States", "US us USA usa U.S. U.S.A."),
        ("United Kingdom", "GB UK U.K. GBR Britain England Wales"),
        ("Netherlands", "NL NLD Holland"),
        ("European Union", "EU eu E.U."),
        ("Türkiye", "TR Turkey turkiye TÜRKİYE"),
        ("Hong Kong", "HK HKG hong\u00a0kong"),
        ("Macao", "MO Macau macao"),
        ("Taiwan", "TW TWN taiwan"),
        ("Réunion", "RE REU Reunion RÉUNION Re\u0301union"),
        ("Côte d’Ivoire", "CI Côte\u00a0d'Ivoire"),
        ("South Korea", "KR KOR Korea"),
        ("Worldwide", "World worldwide GLOBAL"),
    ],
)
def test_spellings(name: str, spellings: str) -> None:
    for spelling in [name, *spellings.split(" ")]:
        assert places.canonical(spelling.replace("\u00a0", " ")) == name, spelling


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("United States", "The United States of America"),
        ("Netherlands", " the  Netherlands"),
        ("South Korea", "Korea, Republic of"),
        ("Taiwan", "Republic of China"),
        ("China", "People’s Republic of China"),
        ("St. Martin", "Saint Martin"),
        ("Bosnia & Herzegovina", "Bosnia and Herzegovina"),
        ("Portugal", "Madeira"),
        ("United Kingdom", "Northern Ireland"),
    ],
)
def test_longer_spellings(name: str, spelling: str) -> None:
    assert places.canonical(spelling) == name


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("Frnace", "did you mean 'France'"),
        ("Rusia", "did you mean 'Russia'"),
        ("ZZ", "English name"),
        ("XA", "English name"),
        ("United Nations", "did you mean 'United States'"),
        ("中国", "English name"),
        ("!", "English name"),
        (86, "English name"),
        (False, "YAML takes NO for false: write Norway"),
    ],
)
def test_what_is_no_place_is_refused(word: object, hint: str) -> None:
    with pytest.raises(ValueError, match=f"unknown place {word!r}; .*{hint}"):
        places.canonical(word)
    with pytest.raises(ValueError, match="unknown place"):
        places.canonical("x" * 500)


def test_every_name_code_and_alias_leads_to_a_name() -> None:
    names = places.COUNTRIES
    assert len(names) > 240 and {"Hong Kong", "Taiwan", "Kosovo", "Canary Islands"} <= names
    assert all(places.canonical(name) == name == places.canonical(name.upper()) for name in names)
    for entry in places.ALIASES.replace("\n", "·").split("·"):
        name, _, others = entry.strip().partition(": ")
        for other in filter(None, others.split(", ")):
            assert places.canonical(other) == places.canonical(name) == name
    of_three = {code: new[0] for code, new in get_global("territory_aliases").items()}
    assert {places.canonical(c) for c in ("DEU", "JPN", "BRA", "ARE")} == {
        places.canonical(of_three[c]) for c in ("DEU", "JPN", "BRA", "ARE")
    }


def test_groups() -> None:
    union = places.members(["European Union"])
    assert len(union) == 27 + 9 and union == sorted(union)
    assert {*places.members(["European Economic Area"])} - {*union} == {
        "Iceland",
        "Liechtenstein",
        "Norway",
    }
    without_euro = {*union} - {*places.members(["Eurozone"])}
    assert without_euro == {"Czechia", "Denmark", "Hungary", "Poland", "Romania", "Sweden"}
    assert places.members(["France", "European Union", "France"]).count("France") == 1


@pytest.mark.parametrize(
    ("place", "excluded", "inside"),
    [
        ("France", "European Union", True),
        ("European Union", "European Union", True),
        ("Eurozone", "European Union", True),
        ("European Economic Area", "European Union", True),
        *((p, "European Union", True) for p in "Réunion Martinique Guadeloupe Mayotte".split()),
        ("French Guiana", "European Union", True),
        ("St. Martin", "European Union", True),
        ("Åland Islands", "European Union", True),
        ("Canary Islands", "European Union", True),
        ("Portugal", "European Union", True),  # Azores and Madeira
        *((p, "European Union", True) for p in "Europe EMEA Worldwide Caribbean Africa".split()),
        ("Northern Europe", "United Kingdom", True),
        ("Eastern Asia", "South Korea", True),
        ("Eurozone", "United Kingdom", False),
        ("European Union", "South Korea", False),
        ("United Kingdom", "European Union", False),
        ("Greenland", "European Union", False),
        ("New Caledonia", "European Union", False),
        ("St. Barthélemy", "European Union", False),
        ("Jersey", "United Kingdom", False),
        ("Norway", "European Union", False),
        ("Hong Kong", "European Union", False),
    ],
)
def test_within(place: str, excluded: str, inside: bool) -> None:
    assert places.canonical(place) == place and places.canonical(excluded) == excluded
    assert places.within(place, excluded) is inside


def test_every_place_of_the_tables_has_its_one_name() -> None:
    assert {*tables.models()["country"].dropna()} <= places.COUNTRIES
    cells = tables.licenses()["territories_excluded"].dropna()
    names = {name for cell in cells for name in cell.split(";")}
    assert {"European Union", "South Korea"} <= names
    assert all(places.members([name]) and places.canonical(name) == name for name in names)
