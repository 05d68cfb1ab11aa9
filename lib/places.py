"""Names of places: which ones a brief may use, and whether one lies where a licence ends."""

from functools import cache

from babel import Locale

from lib.errors import did_you_mean

EUROPEAN_UNION = frozenset(
    """austria belgium bulgaria croatia cyprus czechia denmark estonia finland france germany greece
    hungary ireland italy latvia lithuania luxembourg malta netherlands poland portugal romania
    slovakia slovenia spain sweden at be bg hr cy cz dk ee fi fr de gr hu ie it lv lt lu mt nl pl
    pt ro sk si es se eu""".split()
) | {"european union", "czech republic", "the netherlands"}
SAME_PLACE = {
    "european union": EUROPEAN_UNION,
    "united kingdom": frozenset({"uk", "gb", "great britain", "england", "scotland", "wales"}),
    "south korea": frozenset({"kr", "korea", "republic of korea"}),
}
WIDER = frozenset({"worldwide", "world", "global", "europe", "eea", "emea"})  # in doubt, all of it
OTHER = frozenset({"usa", "us", "uae", "turkey"})


@cache
def _by_folded_name() -> dict[str, str]:
    territories = {str(code): str(name) for code, name in Locale("en").territories.items()}
    spellings = [*territories.values(), *(code for code in territories if len(code) == 2)]
    return {spelling.casefold(): spelling for spelling in spellings}


def names() -> list[str]:
    """The English names of all countries and regions."""
    return sorted(name for name in _by_folded_name().values() if len(name) > 2)


def check(place: str) -> str:
    """A place as written; ValueError where misspelt, which would lie outside every exclusion."""
    folded = place.strip().casefold()
    aliases = WIDER | OTHER | EUROPEAN_UNION | frozenset().union(*SAME_PLACE.values())
    if folded not in {"", *aliases, *_by_folded_name()}:
        hint = did_you_mean(place.strip().title(), names(), otherwise="write its English name")
        raise ValueError(f"unknown place {place!r}; {hint}")
    return place.strip()


def within(place: str, excluded: str) -> bool:
    """Whether a place lies in one that a licence excludes, or may do so."""
    inner, outer = place.strip().casefold(), excluded.casefold()
    return inner == outer or inner in WIDER or inner in SAME_PLACE.get(outer, ())
