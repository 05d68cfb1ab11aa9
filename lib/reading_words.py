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
    "reason|reasoning|rationale|explanation|why|analysis|thoughts?|confidence|probability|max"
    "|scale|certainty|comment|notes?|example|options"
)
_DOUBT = (  # denials, comparisons, conditions, possibilities, what others say
    r"not|never|no|nor|neither|none|nobody|nothing|non|cannot|without|\w+n't|(?:is|do|does|did|was"
    r"|were|ca|could|wo|would|should|are|has|have)nt|hardly|barely|scarcely|rarely|seldom|almost"
    r"|nearly|borderline|partly|partially|only|too|lack\w*|fail(?:s|ed|ing|ure)?|unable|refus\w+"
    r"|den(?:y|ies|ied)|doubt\w*|avoid\w*|prevent\w*|reject\w*|wrong|incorrect|false|untrue"
    r"|unlike(?:ly)?|impossible|instead|except|far from|short of|close to"
    r"|(?:any|no|every)thing (?:but|other)|all but|(?:rather|other) than|opposite|contrary"
    r"|against|rule[sd]? out|less|least|worse|worst"
    r"|inferior|weaker|loses?|loser|lost|losing|beaten|behind|than|as \S+ as|versus|vs|between"
    r"|if|whether|unless|until|when|whenever|could|might|may|would (?:be|have)|should|must|perhaps"
    r"|maybe|possibl[ey]|(?:suppos|alleg|assum|pretend|expect|argu|instruct|sarcas|ironic)\w*"
    r"|(?:used|want\w*|tr[yi]\w*|attempt\w*|mean\w*|intend\w*|hope\w*) to"
    r"|can be(?! (?:classif|consider|descri|seen)\w*)"
    r"|claims|claimed|claiming|says|said|states|stated|according|ask(?:s|ed)?|wants?|told|either|or"
    r"|both|(?:some|many|others|people|users|they) (?:would )?say"
    r"|nichts?|kein\w*|nie|niemals|ohne|weder|kaum|keineswegs|ne|n'\w+|pas|jamais|ni|sans|aucun\w*"
    r"|rien|nada|nunca|sin|jamás|tampoco|apenas|né|mai|senza|nessun\w*|nulla|niente|não|nao|nem|sem"
    r"|niet|niets|geen|nooit|zonder|nauwelijks|si|wenn|falls|ob|dass|se|quando|cuando|quand|als"
)
_AGAIN = "wait|actually|on second thoughts?|scratch that|correction|i mean|reconsider\\w*"
_OPEN = rf"or|nor|if|unless|{_AGAIN}|maybe|perhaps|possibly|hmm|not (?:sure|really|quite)|no[,.!]"
_ADVERB = r"\w+ly|very|quite|indeed|rather|so|to be|being|overall|muy|très|sehr|molto|muito|zeer"
_IS = (
    r"(?:is|was|are|were|as|it's|that's|seems?|sounds?|appears?|feels?|reads?|leans?|remains?"
    rf"|es|está|parece|est|c'est|semble|ist|wirkt|è|é|sembra)(?:\s+(?:{_ADVERB}))*\s+"
)
_NOUN = (
    "review|sentiment|tone|text|comment|statement|feedback|opinion|message|answer|response|reply"
    "|one|case|example|email|post|tweet|sentence|attitude|verdict|label|rating|category|class"
    "|ticket|request|question"
)
_RATES = "this is|it is|it's|rate[sd]?|rating|gives?|deserves?|scores?|gets?|assign|award|merits?"
_BETTER = (
    r"(?:\w+ly )?(?:wins|is preferred)|is (?:(?:\w+ly|much|far|the|an?|a bit) )*(?:better|best"
    r"|winner|stronger|superior|preferable|preferred|clearer|more (?:helpful|accurate|correct"
    r"|complete|useful|precise|informative|relevant|convincing|thorough|coherent))\b"
)
_PREFER = (
    r"(?:prefer|choose|chose|pick|select|favou?r|vote for|go with|winner is"
    r"|(?:better|best|stronger|superior)(?: \w+)? is)"
)
_ENDS = r"[\"')\s]*(?:$|[.,;:!]|\((?!or)|(?:because|since|overall)\b)"
_OPENS = r"(?<![\w'])"
NAMED = "(?:response|answer|assistant|reply|model|option|candidate|output|version)"


def _of(pattern: str, flags: re.RegexFlag = re.IGNORECASE) -> re.Pattern[str]:
    return re.compile(pattern, flags)


IS_ANSWER, ASIDE = _of(rf"(?s:.*)(?:{_ANSWER})\s*"), _of(rf"(?:\w+[_ ])?(?:{_ASIDE})")
BESIDE = _of(rf"\b(?:{_ASIDE})$|^{ANY}$|{WORD}")  # a key of no answer
DOUBT = _of(
    rf"{_OPENS}(?:{_DOUBT})(?!\w)|[不非没沒未无無勿别別弗吗嗎]|ない|ません|아니|않|안 |吧|か\W*$"
)
IF = _of(r"\b(?:if|unless|whether|suppos\w+|wenn|si|se|falls)\b|\?[\"')\s]*$")
AGAIN = _of(rf"{_OPENS}(?:{_AGAIN})(?!\w)")
ENGLISH = _of(rf"{_OPENS}(?:this|that|it|it's|i|i'd|i'm|my|would|overall|so|therefore)(?!\w)")
MARK = _of(
    rf"(?<![\w-])(?:{_ANSWER})(?:\s*\([^)\n]{{0,80}}\))?"
    r"(?:\"?\s*(?:[:=]+>?|->|→)|\s+(?P<is>is|was|should be|would be|must be)\b:?)\s*"
)
KEYED = _of(r"([^:=\n]{1,40}?)\s*(?:[:=]>?|->|→)\s*(\S.*)")
ONLY = _of(rf"[\s\"'(\[.=>]*({ANY})[\s\"')\].,;:!]*")
LEADING = _of(
    r"[\s\"'(\[]{0,9}(?:(?:therefore|thus|so|overall|hence|sure|okay|well)\b,?\s+)?"
    r"(?:(?:option|choice|class|category|label|answer|level|grade|rating)\s+)?[\"'(\[]{0,9}"
    rf"({ANY})(?!(?<={WORD})(?::|\s+-)[^.\n]{{0,80}}(?:not|n't|no|never)[\s.!]*(?:$|\n))"
    rf"(?:\s*[)\]\"'!;]|\s*\.(?!\s*\d)|\s*$|\s*\n|(?<!{SINGLE}),(?=\s)"
    r"|\s*,?\s+(?=because|since|due\b)|\s+\((?!no\b)"
    rf"|(?::(?=\s)|\s+-)(?!\W*(?:no|not(?!\s+{ANY})|yes|true|false|none|n/?a|low|high|[0-9.]+)(?!\w)))"
    rf"(?!\W*(?:{_OPEN})(?!\w))(?!\s*(?!\1){ANY}\s*(?:$|[.,;:!)\n]|(?:and|or)\b))"
)
LISTED = _of(rf"({ANY})([.):])\s+\w(?s:.)*?(?!\1){ANY}\2\s+\w")
_GAP = r"[^\w\ue000-\uf8ff]{0,9}"
JOINED = _of(
    rf"({WORD}){_GAP}(?:(?:and|or|nor|y|o|e|et|ou|und|oder|en|of|和|或|と)\b)?{_GAP}(?!\1){WORD}"
)
SENTENCES = _of(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)[\"')]*\s+|\n+")
CLAUSES = _of(
    r"(?<!thing)(?<!thing,)(?<!\ball)(?<!\ball,),?\s+(?:but|however|yet)\s+|;"
    r"|,\s+(?:(?=not\s+\w|it(?:'s| is)\b)|(?:while|whereas|and)\s+)"
)
ASSERTED = _of(  # also in Chinese, Japanese and Korean, whose "is" touches the value
    rf"{_OPENS}{_IS}[\"'(]*({WORD})(?!\s+(?:nor|or)\b)"
    rf"|{_OPENS}(?:{_IS}|(?:expresses|has|conveys|shows)\s+)(?:an?|the|une?|eine?)\s+"
    rf"(?:(?:{_ADVERB})\s+)*[\"'(]*({WORD})(?:{_ENDS}|\s+(?:{_NOUN})\b)"
    rf"|(?:是|为|は|が|는|은)\s*({WORD})\s*(?:$|[.!,])|({WORD})(?:です|だ|である|입니다|이다)\W*$"
)
ENDING = _of(rf"({WORD}){_ENDS}")
RATED = _of(
    rf"{_OPENS}(?:{_RATES})(?: it| (?:this|the)(?: \w+)?)?(?: an?| the)?"
    rf"(?: score| rating)?(?: of)? ({ANY}){_ENDS}"
)
PREFERRED = _of(rf"{_OPENS}{_PREFER}\s+[\"'(]*({ANY})|({ANY})\s+(?:{_BETTER})")
