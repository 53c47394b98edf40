r"""Text to sentences by rules, for the segments of BERT's sentence pairs.

A line break always ends a sentence (a paragraph, a title). Inside a line a sentence ends at . ! ? or ... with its
closing quotes and brackets, where white space and something other than a lower-case letter follow; the full-width
marks of Chinese and Japanese need no white space. A single full stop does not end one after a title (Mr. Smith), an
initial (J. Smith), the number of a list (1. First), a month or "No." before a number, or e.g. and its like; after
abbreviations that may stand at the end (U.S., Inc., etc., a.m.) it does where a word follows that commonly begins a
sentence (The, He, In). Text whose punctuation stands apart, as WikiText's (`3 @.@ 14`, `end . " She`), is split alike:
a quotation mark that stands alone closes where an odd number came before it in the line.

Nothing but white space between sentences is lost. Such rules err on names that look like sentences ("Yahoo! News");
for next sentence prediction a rare wrong boundary does no harm.
"""

import re

_TITLES = """
mr mrs ms dr prof rev fr gen col capt cpt cmdr adm maj lt sgt cpl pvt sen rep gov pres hon st ste mt ft messrs
mme mlle mgr vs v cf viz ca approx e.g i.e eg ie incl esp
"""
_BEFORE_NUMBERS = """
no nos p pp vol vols fig figs ch chap sec art op eq eqs ref refs jan feb mar apr jun jul aug sep sept oct nov
dec c
"""
_MAY_END = """
inc ltd co corp llc plc jr sr etc al est dept univ assn bros ave blvd rd a.m p.m am pm ph.d m.d b.a m.a d.c
u.s.a
"""
_BEGINNERS = """
the this that these those a an he she it they we i you his her its their our my there here in on at by for from
with as after before during since while when where although though however but and so if then what who why how
not no some many most all both one two another other such each
"""
TITLES, BEFORE_NUMBERS, MAY_END, BEGINNERS = (
    frozenset(words.split()) for words in (_TITLES, _BEFORE_NUMBERS, _MAY_END, _BEGINNERS)
)
_WIDE = "\u3002\uff01\uff1f"  # with these no white space follows
_MARKS = rf".!?\u2026\u203d\u061f\u06d4\u0964\u0965{_WIDE}"
_END = re.compile(  # begins with one set of characters, which the search then skips to
    rf"(?P<mark>[{_MARKS}](?<![{_MARKS}]{{2}})(?:\s?[{_MARKS}])*)(?P<closers>[\"'\u201d\u2019\u00bb)\]}}\u300d\u300f\uff09]*)"
    rf"(?:(?=\s)|(?<=[{_WIDE}\u300d\u300f\uff09]))"
)
_LONE_CLOSER = re.compile(r"\s+(''|[\"\u201d\u2019')\]}])(?=\s|$)")
_OPENERS = "\"'\u201c\u2018\u00ab([{`\u00bf\u00a1*"
_LINES = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_WORD = re.compile(r"[^\W\d_]+")


def split_sentences(text):
    """The sentences of a text in their order, without the white space around them; blank lines give none.

    Example:
        'Mr. Hill paid $3.14. "Why?" asked he. = Notes =' gives
        ['Mr. Hill paid $3.14.', '"Why?" asked he.', '= Notes =']
    """
    sentences = []
    for line in _LINES.split(text):
        begin = 0
        for end in _ends(line):
            sentence = line[begin:end].strip()
            if sentence:
                sentences.append(sentence)
            begin = end
        rest = line[begin:].strip()
        if rest:
            sentences.append(rest)
    return sentences


def split_lines(text):
    """One sentence per line, for text that is already split; blank lines give none."""
    return [line for line in map(str.strip, _LINES.split(text)) if line]


def _ends(line):
    """Where the sentences of a line end, the last one left out."""
    begin = 0
    for match in _END.finditer(line):
        end = match.end()
        if end <= begin:
            continue
        if match["mark"][-1] in _WIDE:
            yield (begin := end)
            continue
        end = _with_lone_closers(line, begin, end)
        word = line[end : end + 80].lstrip().lstrip(_OPENERS + " ")
        if not word or word[0].islower() or word[0] in ",;:.!?":
            continue
        if match["mark"] == "." and not match["closers"] and not _ends_at_full_stop(line, begin, match.start(), word):
            continue
        yield (begin := end)


def _with_lone_closers(line, begin, end):
    """The end of a sentence moved behind the quotation marks and brackets that stand alone and belong to it."""
    while lone := _LONE_CLOSER.match(line, end):
        if lone[1] == '"' and line.count('"', begin, end) % 2 == 0:
            break
        if lone[1] in ("'", "''") and not re.search(r"(?:^|\s)['`]", line[begin:end]):
            break
        end = lone.end()
    return end


def _ends_at_full_stop(line, begin, place, after):
    """Whether the full stop at `place` ends the sentence that began at `begin`, given the text `after` it."""
    before = line[max(begin, place - 30) : place].rstrip()
    if not before:
        return True
    token = before.split()[-1].lstrip(_OPENERS + "-\u2013\u2014")
    word = token.lower()
    if word in TITLES:
        return False
    if word in BEFORE_NUMBERS:
        return not after[0].isdigit()
    initial = len(token) == 1 and token.isalpha() and token.isupper()
    if word in MAY_END or initial or re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]{1,2}", token):
        follower = _WORD.match(after)
        return bool(follower) and follower[0].lower() in BEGINNERS
    return not (token.isdigit() and len(token) < 4 and not line[begin : line.rfind(token, begin, place)].strip())
