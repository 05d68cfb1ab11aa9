"""Text that models write: without its reasoning, and in one form so that it can be compared."""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

RULES = ("nfkc", "casefold", "whitespace", "punctuation")
# A number that stands alone: no part of a word, a date, a time, a ratio or a version.
NUMBER = re.compile(
    r"(?<![\w.,:/])(?<![0-9]-)([-+]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(\.[0-9]+)?"
    r"(?!\w|[.,:/-][0-9])"
)
MARKS = " ,;:!?\"'`*()[]{}"
ARTICLE = re.compile(r"(?<!\S)(?:an?|the)\s+(?=\S)", re.IGNORECASE)
BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
ALIKE = {"’": "'", "‘": "'", "‛": "'", "ʼ": "'", "。": ".", "।": ".", "、": ",", "،": ",", "؟": "?"}
ALIKE |= {"−": "-", "\ufe0e": "", "\ufe0f": ""}
# By category: dashes, brackets, quotes; what cannot be seen (zero width, direction) goes.
KINDS = {"Pd": "-", "Ps": "(", "Pe": ")", "Pi": '"', "Pf": '"', "Cf": "", "Co": ""}

LATEX = re.compile(r"\\\w+|[{}]")
FLAGS = re.IGNORECASE | re.MULTILINE
LAYOUT = [  # boxes, ticks, elements and bold at the end are marks; the rest goes
    (r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<end_of_turn>|<eos>", " "),
    (r"\A\s*<([^<>]{1,80})>\s*\Z", r"\1"),
    (r"<(del|strike)>[^<]*</\1>", ""),
    (r"</?(?:b|i|em|strong|p|br|code|span|div|li|ul|ol)\s?/?>", " "),
    (r"<([a-z_]{1,30})>([^<>]{0,2000})</\1>", r"\n\1: \2\n"),
    (r"\[\[([^][\n]{1,80})\]\]", r" answer: \1\n"),
    (r"^\s*(?:[-*]\s*)?\[x\](?=\s+\w)", "answer: "),
    (r"^\s*(?:[-*]\s*)?\[ \].*$|~~[^~\n]*~~", ""),
    (r"\*\*([^*\n]{1,80})\*\*([.!\s]*)\Z", r" answer: \1\2"),
    (r"\*{1,3}([^*\n]+)\*{1,3}", r"\1"),
    (r"^\s*(?:[-*+•]\s+|#{1,6}\s+|>+\s+|```\w*)+|`|(?<!\w)_+|_+(?!\w)|^\s*\||\|\s*$", ""),
    (r"\|", " : "),
]
LAYOUTS = [(re.compile(pattern, FLAGS), instead) for pattern, instead in LAYOUT]
BOXED = re.compile(r"\$*\\boxed\s*\{((?:[^{}]|\{[^{}]*\}){0,200})\}\$*")
FIRST, ITEM = re.compile(r"\s*1[.)]\s+[^\W\d]"), re.compile(r"^\s*[0-9]+[.)]\s+(?=\w)", FLAGS)

# Marks around a draft that are no tags. What harmony writes before its final channel is a draft,
# also where the server swallowed its tokens.
DRAFT_OPENS = re.compile(
    r"\[THINK\]|◁think▷|<\|(?:START_THINKING|begin_of_thought|inner_prefix)\|>|<\|channel>\w*"
)
DRAFT_ENDS = re.compile(
    r"\[/THINK\]|◁/think▷|<\|(?:END_THINKING|end_of_thought|inner_suffix)\|>|<channel\|>"
    r"|<\|channel\|>final[^<]{0,40}(?:<\|constrain\|>\w{0,20})?<\|message\|>"
)
HARMONY_DRAFT = re.compile(
    r"<\|channel\|>(?:analysis|commentary)(?:(?!<\|channel\|>|<\|end\|>|<\|call\|>).)*"
    r"(?:<\|(?:end|call)\|>)?|\A\s*analysis(?:.*assistant ?final|(?=[A-Z]).*)",
    re.DOTALL,
)
TOKENS = re.compile(
    r"<\|start\|>assistant|<\|(?:end|return|START_RESPONSE|END_RESPONSE|START_TEXT|END_TEXT"
    r"|begin_of_solution|end_of_solution|begin_of_box|end_of_box)\|>"
)
DRAFTS = ("thought", "seed:think")  # tags of drafts beside those of a brief


def normalise(text: str, rules: Sequence[str] = RULES) -> str:
    """Text for comparison, by those of the `STEPS` that a brief names, always in their order."""
    for rule, step in STEPS.items():
        text = step(text) if rule in rules else text
    return text


def one_form(text: str) -> str:
    """One form of every character (width, ligatures, accents) and kind of punctuation."""
    text = unicodedata.normalize("NFKC", text)
    return text if text.isascii() else BEYOND_ASCII.sub(lambda match: _alike(match[0]), text)


@lru_cache(maxsize=4096)
def _alike(character: str) -> str:
    return ALIKE.get(character, KINDS.get(unicodedata.category(character), character))


def _canonical(number: re.Match[str]) -> str:
    # On the digits themselves: a float would make 0.1 of 0.1000000000000000055.
    sign, whole, fraction = number[1], number[2], (number[3] or "").rstrip("0").rstrip(".")
    if not whole and not number[3]:
        return number[0]
    value = (whole.replace(",", "").lstrip("0") or "0") + fraction
    return ("-" if sign == "-" and value != "0" else "") + value


STEPS: dict[str, Callable[[str], str]] = {
    "nfkc": one_form,
    "casefold": str.casefold,
    "whitespace": lambda text: " ".join(text.split()),
    # Around the whole text. What tells answers apart stays: .5 is not 5, ? is not nothing.
    "punctuation": lambda text: text.lstrip(MARKS).rstrip(f".{MARKS}") or text,
    # The English a, an and the before another word.
    "articles": lambda text: ARTICLE.sub("", text),
    # A number that stands alone, by value: 1,000 = 1000.0 = +1000, .50 = 0.5, -0 = 0. A currency
    # sign or a unit stays: $3.50 is $3.5, not 3.5. Dates, times and decimal commas stay text.
    "numbers": lambda text: NUMBER.sub(_canonical, text.replace("−", "-")),
}


def without_layout(text: str) -> str:
    """An answer's words without their layout."""
    text = one_form(re.sub("[—―]", " - ", html.unescape(text)))
    text = BOXED.sub(lambda match: f" answer: {LATEX.sub('', match[1])}\n", text)
    for pattern, instead in LAYOUTS:
        text = pattern.sub(instead, text)
    text = ITEM.sub("", text) if FIRST.match(text) else text
    return text.strip()


def visible(output: str, tags: Sequence[str]) -> str:
    """An answer without the model's reasoning: `<think>…</think>` of any of `tags`.

    An opening tag never closed ends it, a closing tag never opened starts it: many chat templates
    open it in the prompt. Tags in a code block or between backticks are text about tags. With any
    tags the marks of Mistral, Cohere, Gemma, Kimi, Seed and gpt-oss (harmony) are read as well.
    """
    if not tags:
        return output.strip()
    output = DRAFT_ENDS.sub("</thought>", HARMONY_DRAFT.sub("", output))
    output = TOKENS.sub("", DRAFT_OPENS.sub("<thought>", output))
    if "<" not in output:
        return output.strip()
    outside, end_tags = _patterns((*tags, *DRAFTS))
    parts: list[str] = []
    start = place = 0
    while tag := outside.search(output, place):
        place = tag.end()
        if tag["fence"]:
            end = output.find("```", place)
            place = end + 3 if end >= 0 else place - 1  # a fence left open protects nothing
        elif tag["close"]:
            parts, start = [], place
        else:
            parts.append(output[start : tag.start()])
            end_tag = end_tags[tag["name"].casefold()].search(output, place)
            start = place = end_tag.end() if end_tag else len(output)
    return "".join([*parts, output[start:]]).strip()


@lru_cache(maxsize=8)
def _patterns(tags: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, re.Pattern[str]]]:
    # Attributes are bounded: a million unclosed "<think " must not take quadratic time.
    names = "|".join(re.escape(tag) for tag in tags)
    start_tag, end_tag = rf"<(?P<name>{names})(?:\s[^<>]{{0,200}})?>", rf"</(?:{names})\s{{0,9}}>"
    bare = r"(?:(?P<tick>`)|(?<!`))(?:%s)(?(tick)(?!`))"
    outside = "(?P<fence>```)|" + bare % rf"{start_tag}|(?P<close>{end_tag})"
    flags = re.IGNORECASE | re.ASCII  # otherwise a dotless i would match, and fold to no tag
    ends = {tag: bare % rf"</{re.escape(tag)}\s{{0,9}}>" for tag in tags}
    end_tags = {tag.casefold(): re.compile(end, flags) for tag, end in ends.items()}
    return re.compile(outside, flags), end_tags
