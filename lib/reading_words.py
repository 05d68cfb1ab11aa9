"""The words and patterns by which `reading` knows an answer from what only looks like one.

In the texts that they are for, every value looked for is one private character, by three kinds:
long ones, short ones (no label within a sentence: "no", "IT", 4) and single letters.
Negations are read in English, and of a few languages as far as their plain "it is …" goes.
"""

import re

LONG, SHORT, LETTER = 0xE000, 0xF000, 0xF400  # first characters
ANY, WORD, SINGLE = "[\ue000-\uf8ff]", "[\ue000-\uefff]", "[\uf400-\uf8ff]"
COMMON = frozenset(
    "the and all any both can may will one two other none neither not yes who out off his her its"
    " our now new use see say get how why per via set first second general".split()
)

_ANSWER = (  # JSON keys, and words before a colon
    "answer|label|rating|verdict|grade|score|sentiment|categor(?:y|ies)|class|classification"
    "|winner|preference|preferred|decision|choice|option|result|judge?ment|prediction|conclusion"
    "|response|output|ranking|order|final|stars|points"
)
_ASIDE = (  # keys of what stands beside an answer
    "reason|reasoning|rationale|explanation|why|thoughts?|confidence|probability|max"
    "|scale|certainty|comment|notes?|example|options|count|number|irrelevant|scores|relevances"
)
_DOUBT = (  # before a mark, or in a key
    r"not|never|no|nor|neither|none|non|cannot|without|\w+n't|hardly|wrong|incorrect|false"
    r"|reject\w*|instead|except|exclud\w*|eliminat\w*|ruled out|unlike|opposite|less|least|worse"
    "|worst|loser?|weaker|than|versus|vs|between|if|whether|unless|could|might|may|would (?:be"
    "|have)|should|perhaps|maybe|expected|claims|says|said|wrote|writes|asked|told|student"
    "|reference|human|previous|draft|initial|tentative|allowed|old|alternative|example|format"
    r"|(?:second|third|next)(?=\s*$)|runner-?up|max(?:imum)?|min(?:imum)?|either|or|both"
    r"|possibl\w+|non|nicht|kein\w*|pas|não|niet"
)
_AGAIN = "but no|wait|actually|on second thoughts?|scratch that|correction|i mean|reconsider\\w*"
_OPEN = rf"or|nor|if|unless|{_AGAIN}|maybe|perhaps|possibly|hmm|not (?:sure|really|quite)|no[,.!]"
_OPEN += "|except|apart from|aside from"
_ADVERB = (
    "(?:(?:complete|full|total|absolute|undoubted|clear|overwhelming|definite|strong|general"
    "|large|most|certain|obvious|entire|high|extreme|probab|like|real|tru|main|primari"
    "|predominant|generous)ly|clear|very|quite|rather|indeed|overall|to be|muy|très|sehr|molto"
    r"|muito|zeer)\s+"
)
_IS = (
    "(?:is|was|are|seems?|sounds?|appears?|feels?|reads?|leans?|remains?|expresses|conveys|has"
    r"|(?:belongs|goes) to|is an? \w+ for|can be (?:classified|considered|described|seen"
    r"|labell?ed) as|es|está|parece|est|semble|ist|wirkt|è|é|sembra)\s+"
)
_NOUN = (
    "review|sentiment|tone|text|comment|statement|feedback|opinion|message|answer|response|reply"
    "|one|case|example|email|post|tweet|sentence|attitude|verdict|label|rating|category|class"
    "|ticket|request|question|item|order|reviewer|customer|user|author|writer|speaker|topic"
    "|subject|theme|type"
    "|kind|genre|language|emotion|mood|stance|intent|intention|department|team|priority|severity"
    "|risk|relation|level|claim|article|document|passage|content|winner|choice|option|grade|result"
    "|classification|prediction|conclusion|outcome|status|language|state|polarity|conversation"
    "|avis|critique|commentaire|texte|ton|opinión|reseña|comentario|texto|sentimiento|tono|mensaje"
    "|bewertung|rezension|stimmung|kommentar|aussage|recensione|commento|testo|giudizio|avaliação"
    "|resenha|comentário|sentimento|tom|recensie|tekst|toon|etiqueta|respuesta|réponse|antwort"
)
_BETTER = (
    rf"(?:(?:{_ADVERB})?(?:wins|is preferred)|is (?:{_ADVERB}|(?:slightly|significantly|much|far"
    r"|the|an?|a bit) )*(?:better|best|winner|stronger|superior|preferable|preferred|clearer"
    r"|more (?:helpful|accurate|correct|complete|useful|precise|informative"
    r"|relevant|convincing|thorough|coherent)))\b"
)
_FIRST = (
    r"^(?:(?:but|however|overall|in (?:short|summary)|so|thus|therefore|"
    r"i (?:think|believe)|on a scale [^,]{1,20}?)[,:]?\s+)*"
)
_ENDS = r"[\"')\s]*(?:$|[.,;:!]|\((?!or)|(?:because|since|overall)\b)"
_OPENS = r"(?<![\w'])"
NAMED = "(?:response|answer|assistant|reply|model|option|candidate|output|version)"


def _of(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_DENIED = rf"(?:.*[\W_])?(?:{_DOUBT})(?:[\W_].*)?"  # keys: wrong_label, worse, least_likely
IS_ANSWER = _of(rf"(?!{_DENIED}$)(?s:.*)(?:{_ANSWER})\s*")
ASIDE = _of(rf"(?:\w+[_ ])?(?:{_ASIDE}|const|enum|text|input|title)|{_DENIED}")
ASIDE_OR_COUNT = _of(rf"{ASIDE.pattern}|.*[^s]s")  # errors, facts
NO_ORDER = _of(r"\b(?:not|worst|least|ascending|reversed?)\b[^\n>.{}\"]{0,60}?\[?[0-9]+\]?\s*[>,]")
BESIDE = _of(rf"\b(?:{_ASIDE}|was|before|input|email|user)$|^!|{ANY}")  # a key of no answer
DOUBT = _of(rf"{_OPENS}(?:{_DOUBT})(?!\w)|[不非没無如若]|可能|아니")
NO_LIST = _of(rf"{DOUBT.pattern}|[<=≤≥]|>\s|irrelevant|\[(?:-|[0-9]*\.)")
SET_ASIDE = _of(rf"\b(?:not|despite|although|rather than)\b[^,]{{0,20}}{WORD}")
OTHERWISE = _of(
    rf"{_OPENS}(?:if|unless|until|whether|or|nor|than|barely|at first|initially"
    r"|except|apart from|aside from|first \w+)(?!\w)"
    r"|\?[\"')\s]*$|\b(?:(?:is|are|was|were) not|\w+n't|the rest\b.*)[.!\s]*$|如果|可能|不能|[不没]"
    rf"|(?<!of )(?<!from ){ANY}(?: \([^()]{{0,30}}\))? (?:to|through) {ANY}"
    r"|很难|很難|未必|(?<!特)[别別]|绝非|絕非|,\s*(?:aber|mais|pero|ma|mas|maar)\s"
)
TAKEN_BACK = _of(  # after the last value
    r"\b(?:scratch that|on second thoughts?|reconsider\w*|never mind|hmm|(?:just )?(?:kidding"
    r"|joking)|no,? wait|wait,? no|actually,? no|or not|take (?:that|it|this) back)\b"
    r"|(?:\A|[-.,!])\s*not\W*\Z|\A\W*\(?(?:ironic|sarcas)"
    r"|\A\s*\((?:not?|un\w+)\b|\n[\w ]{1,20}[:=]\s*\Z"
)
OR_ELSE = _of(
    rf"(?<!{ANY} )(?<!{ANY}, )\b(?:or|but(?: also)?|no,|alternatively|or rather|(?:could|might"
    rf"|may)(?: also)? be)\W+(?:an?\s+)?({ANY})"
)
AGAIN = _of(rf"{_OPENS}(?:{_AGAIN}|take (?:that|it|this) back|hmm)(?!\w)")
TAKES_BACK = _of(rf"(?:^|[\n.!?;])[\s\"'(]*(?:{_AGAIN}|no[,.!:]|on reflection|hmm)(?!\w)")
MARK = _of(
    rf"(?<![\w-])(?:{_ANSWER})(?:\s*\([^)\n]{{0,80}}\))?"
    r"(?:\"?\s*(?:[:=]+>?|->|→)|\s+(?P<is>is|was|should be|would be|must be)\b:?)\s*"
)
KEYED = _of(
    rf"(?:([^:=\n]{{1,40}}?)\s*(?:[:=]>?|->|→)|([^:=\n]{{0,20}}\b(?:{_ANSWER})) -)\s*(\S.*)"
)
ONLY = _of(rf"[\s\"'(\[.=>]*({ANY})[\s\"')\].,;:!]*")
LEADING = _of(
    r"[\s\"'(\[]{0,9}(?:(?:therefore|thus|so|overall|hence|sure|okay|well)\b,?\s+)?"
    r"(?:(?:option|choice|class|category|label|answer|level|grade|rating)\s+)?[\"'(\[]{0,9}"
    rf"({ANY})(?!(?<={WORD})(?::|\s+-)[^.\n]{{0,80}}(?:not|n't|no|never)[\s.!]*(?:$|\n))"
    rf"(?:\s*[)\]\"'!;]|\s*\.(?!\s*\d)|\s*$|\s*\n|(?<!{SINGLE}),(?=\s)"
    rf"|\s*,?\s+(?=because|since|due\b)|\s+\((?!(?:no|un\w+)\b|not\s*\)|[^()\n]{{0,30}}\)\W*"
    rf"(?:(?:and|to|through)\s+)?{ANY})"
    rf"|(?::(?=\s)|\s+-(?!>))(?!\W*(?:no|not(?!\s+{ANY})|yes|true|false|none|n/?a|low|high"
    rf"|[0-9.]+)(?!\w)))"
    rf"(?!\W*(?:{_OPEN}|is|was|would|means?)(?!\w))"
    rf"(?![\s.]*(?!\1){ANY}\s*(?:$|[.,;:!)\n]|(?:and|or)\b))(?!\s*[-+*/]?\s*{ANY}\s*=)"
)
LABELLED_LIST = _of(rf"({ANY})([.):])\s+\w(?s:.)*?(?!\1){ANY}\2\s+\w")
# No part of a longer word, number, path, abbreviation or elision: C's, U.S.A., a/b, C++, 5%.
LEFT, RIGHT = (
    r"(?<![\w$#@\\~<>^])(?<!\w['&./@_-])(?<![/&+-])(?<!\s[.])",
    r"(?![\w%+#*⁄]|!=|['&/@_.,-]\w|:(?:\d|\s*\\)|\.\s?\w\.|\s*%)",
)
CHAIN = re.compile(
    r"(?<![-.0-9<=\[])(?<![<=>]\s)(?<!not )(?<!or )\[?[0-9]{1,6}+\]?"
    r"(?:\s*(?:-?>|[→≻])\s*\[?[0-9]{1,6}+\]?+)++"
    r"(?!\s*(?:or\b|[?=0-9]|<\s*[0-9])|\.[0-9])|\[[0-9]{1,6}(?:\s*,\s*[0-9]{1,6})+\]"
)
SENTENCES = _of(
    r",?\s+(?<!thing )(?<!thing, )(?<!all )(?=(?:but|however)\s)|;\s+"
    r"|(?<=[.!?])(?<!\s[0-9]\.)(?<!\be\.g\.)(?<!\bi\.e\.)[\"')]*\s+|\n+"
)
_VALUE = rf"[\"'(]*({WORD})"
_THING = (
    r"(?:(?!(?:no|non|not|nie|ne|n'\w+|nicht|niet|não"
    r"|pas|never|hardly|previous|other|earlier|last|next|first|second)\s)[\w']+\s+)"
)
_THIS = (
    r"(?:(?:(?:the|this|that|its|my|your|el|la|le|il|der|die|das|de|het|este|esta)\s+"
    rf"|l'){_THING}{{0,2}}(?:{_NOUN})s?\s+(?:\w+ed\s+)?(?:(?:of|in|for|by)\s+(?:the|this"
    rf"|it)\s+(?:\w+\s+)?)?{_IS}|(?:it|this|that|c'|they|das|dies|dit|esto|eso|isto|questo"
    rf"|cela)\s*{_IS}|(?:it's|that's|es|è|é)\s+)"
)
ASSERTED = _of(  # also in Chinese, Japanese and Korean, whose "is" touches the value
    r"^(?:(?:overall|so|thus|therefore|yes|but|however|i (?:think|believe)|i(?:'d| would) say"
    r"|in short|based on [^,]{1,40}|despite [^,]{1,20}|(?:it's not|not) [^,]{1,20}(?=,)),?\s+"
    r"(?:that\s+)?)*"
    rf"(?:{_THIS}(?:{_ADVERB})*(?:(?:an?|the|une?|eine?)\s+(?:{_ADVERB})*)?"
    r"|(?:i|we)(?:'d| would|'ll| will)?\s+(?:say|call|send|route|assign|classify|label|rate|choose"
    rf"|pick|mark|consider|go)\s+(?:(?:it|this|that|is|as|to|with|for|an?)\s+)*(?:{_ADVERB})*)"
    rf"{_VALUE}(?:{_ENDS}|\s+(?:{_NOUN}|and|about|with|despite|overall|as)\b)"
    rf"|^{_VALUE}[\s.!\"')]*$|(?<![不非没])(?:是|为|は|が|는|은)\s*({WORD})\W*$"
    rf"|({WORD})(?:です|だ|である|입니다|이다)\W*$"
)
RATED = _of(
    rf"{_FIRST}(?:i(?:'d| would)? (?:rate|give|score|assign|award)|(?:it|this|the \w+) (?:is"
    rf"|deserves|gets|merits|scores|earns))(?: (?:it|this|the|response|reply|answer|an?))*"
    rf"(?: (?:score|rating))?(?: of)? ({ANY}){_ENDS}"
)
PREFERRED = _of(
    rf"{_FIRST}(?:i(?:'d| would)? (?:prefer|choose|pick|select|favou?r|vote for|go with)"
    rf"|the (?:winner|(?:better|best|stronger|superior)(?: \w+)?) is) ({ANY})(?:{_ENDS}| over\b)"
    rf"|{_FIRST}({SINGLE}) {_BETTER}(?![^.]*,\s*(?:and |while )?{ANY} (?:in|on|is|wins)\b)"
    rf"|{ASSERTED.pattern}"
)
SPACE = re.compile(r"(?<=\w)[-_\s]+(?=\w)")
ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
QUOTED = re.compile(rf'(?<![:=])(?<![:=] )"(?!{ANY}[.,!]?")[^"\n]{{0,300}}"')
SIGNS = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
REFUSAL = re.compile("[\u2715-\u2718\u274c\u274e\U0001f44e\U0001f6ab]")
RATED_WORDS = re.compile(r"^(?:[^\W\d]+ ){0,2}[^\W\d]+,")  # very polite, 5
NOUN = re.compile(r"(?:documents?|docs?|passages?)\s*#?(?=\s*\[?[0-9])", re.IGNORECASE)
NUMBER = r"[-+]?[0-9]{1,9}(?:,[0-9]{1,2}|\.[0-9]{1,9})?"
TIES = "tied|draw|equal|equally good|both|a tie|a draw|neither|neither is right".split("|")
SIDES = (("A", ("1", "first", "the first")), ("B", ("2", "second", "the second")))
PREFERENCES = (*SIDES, ("tie", tuple(TIES)))
