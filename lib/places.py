"""Places: the one English name that each goes by, and which of them may overlap."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from babel import Locale
from babel.core import get_global

from lib.errors import did_you_mean

# Members, and the parts of them that have a name of their own (TFEU 349, 355), by CLDR's codes.
UNION = """AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK
    AX EA GF GP IC MF MQ RE YT""".split()
NO_EURO = "CZ DK HU PL RO SE".split()
NOWHERE = "QO UN XA XB ZZ".split()
NAMES = {"HK": "Hong Kong", "MO": "Macao", "001": "Worldwide", "MM": "Myanmar", "EMEA": "EMEA"}
NAMES |= {"APAC": "Asia-Pacific", "EEA": "European Economic Area"}
# Besides what CLDR knows: its names, and the codes of two and three letters.
ALIASES = """
    Bosnia & Herzegovina: Bosnia · Brunei: Brunei Darussalam · Cape Verde: Cabo Verde
    China: PRC, People's Republic of China, mainland China · Czechia: Czech Republic
    Congo - Brazzaville: Republic of the Congo · Côte d’Ivoire: Ivory Coast
    Congo - Kinshasa: Democratic Republic of the Congo, DRC · Eswatini: Swaziland
    European Economic Area: EEA · Hong Kong: Hong Kong SAR, Hong Kong SAR China
    Ireland: Republic of Ireland · Macao: Macau, Macao SAR China · Moldova: Republic of Moldova
    Myanmar: Burma, Myanmar (Burma) · Netherlands: Holland · North Macedonia: Macedonia
    North Korea: DPRK, Democratic People's Republic of Korea · Portugal: Azores, Madeira
    Palestinian Territories: Palestine · Réunion: La Réunion · Russia: Russian Federation
    South Korea: Korea, Republic of Korea, Korea (Republic of) · Slovakia: Slovak Republic
    Taiwan: Republic of China, Chinese Taipei · Timor-Leste: East Timor · Türkiye: Turkey
    United Arab Emirates: UAE · United States: United States of America
    United Kingdom: Great Britain, Britain, England, Scotland, Wales, Northern Ireland
    Vatican City: Holy See · Vietnam: Viet Nam · Worldwide: world, global · Åland Islands: Åland
"""
# The name of every country, group and region by CLDR's code, and the members of groups.
_NAMES = {str(code): str(name) for code, name in Locale("en").territories.items()} | NAMES
_NAMES = {code: name for code, name in _NAMES.items() if code not in NOWHERE}
_CODES = {"EU": UNION, "EEA": [*UNION, "IS", "LI", "NO"], "EZ": {*UNION} - {*NO_EURO}}
GROUPS = {_NAMES[group]: {_NAMES[code] for code in codes} for group, codes in _CODES.items()}
COUNTRIES = {name for code, name in _NAMES.items() if len(code) == 2} - GROUPS.keys()


def _folded(place: str) -> str:
    """Without case, accents and stops: U.S.A., The Netherlands and Reunion find their names."""
    plain = unicodedata.normalize("NFKD", place.casefold().replace("&", " and "))
    words = re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))
    return "".join({"the": "", "saint": "st"}.get(word, word) for word in words)


@cache
def _by_spelling() -> dict[str, str]:
    codes = {c: new[0] for c, new in get_global("territory_aliases").items() if len(c) == 3}
    codes |= {"UK": "GB"} | {code: code for code in _NAMES}
    spellings = {_folded(code): _NAMES[new] for code, new in codes.items() if new in _NAMES}
    for entry in re.split(r"[·\n]", ALIASES):
        name, _, others = entry.strip().partition(": ")
        spellings |= {_folded(other): name for other in others.split(", ") if other}
    return spellings | {_folded(name): name for name in _NAMES.values()}


def canonical(place: object) -> str:
    """The name of a place however it is spelt, "" where nothing is given; ValueError for none."""
    if not str(place).strip():
        return ""
    if name := _by_spelling().get(_folded(str(place))):
        return name
    hint = did_you_mean(str(place).strip().title(), COUNTRIES, otherwise="write its English name")
    if place is False:
        hint = "YAML takes NO for false: write Norway"
    raise ValueError(f"unknown place {place!r:.80}; {hint}")


def one_country(name: str) -> str:
    """A canonical name; ValueError where it is a group or a region, which matches no country."""
    if name not in COUNTRIES:
        raise ValueError(f"{name!r} is not one country: write which one")
    return name


def members(names: Iterable[str]) -> list[str]:
    """The countries of canonical names, groups resolved; ValueError where a region is none."""
    resolved = [c for name in names for c in sorted(GROUPS.get(name, {name}))]
    if vague := [name for name in resolved if name not in COUNTRIES]:
        choice = f"name them, or one of {', '.join(GROUPS)}"
        raise ValueError(f"{vague[0]!r} is no list of countries: {choice}")
    return list(dict.fromkeys(resolved))


def within(place: str, excluded: str) -> bool:
    """Whether a canonical place overlaps one that a licence excludes; a region may do so."""
    inside, outside = (GROUPS.get(name, {name}) for name in (place, excluded))
    return bool(inside & outside) or not inside <= COUNTRIES
