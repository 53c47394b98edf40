"""Read texts once, check them, and count their words and characters."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from hftoolkit.errors import DataError

MAX_CHARACTERS = 1_000_000  # given to a pre-tokenizer at once: it needs some hundred bytes per character


class Documents:
    """A stream of texts that can be gone through once; it refuses what is not text and an end without any text."""

    def __init__(self, texts: Iterable[str], progress: bool):
        if isinstance(texts, str):
            raise DataError("texts is one string; give a list (or any iterable) of documents: [text]")
        self.texts, self.visible = texts, progress and sys.stderr.isatty()

    def __iter__(self) -> Iterator[str]:
        from tqdm import tqdm

        number, characters = 0, 0
        for number, text in enumerate(tqdm(self.texts, "reading", unit=" documents", disable=not self.visible), 1):
            if not isinstance(text, str):
                raise DataError(f"document {number} is {type(text).__name__}, not text; give strings")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"document {number} has a lone surrogate (half a character) at position {error.start}; "
                    "remove it, e.g. text.encode('utf-8', 'replace').decode()"
                ) from None
            characters += len(text)
            yield from parts_of(text)
        if not characters:
            raise DataError(f"{number} documents with 0 characters: there is nothing to train a tokenizer on")


def parts_of(text: str) -> Iterator[str]:
    """Cut a long text before white space, where every pre-tokenizer ends a word; without any, anywhere.

    Example:
        "ab cd" gives "ab" and " cd" where MAX_CHARACTERS is 3.
    """
    begin = 0
    while len(text) - begin > MAX_CHARACTERS:
        end = begin + MAX_CHARACTERS
        cut = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
        while cut > begin and text[cut - 1].isspace():
            cut -= 1
        cut = cut if cut > begin else end
        yield text[begin:cut]
        begin = cut
    yield text[begin:]


def count_words(documents: Iterable[str], normalizer, pre_tokenizer) -> Counter:
    """How often each word occurs; without a pre-tokenizer the words are the characters."""
    counts = Counter()
    for text in documents:
        if normalizer is not None:
            text = normalizer.normalize_str(text)
        counts.update(text if pre_tokenizer is None else (word for word, _ in pre_tokenizer.pre_tokenize_str(text)))
    return counts


def count_characters(word_counts: Mapping[str, int]) -> Counter:
    """How often each character occurs in words that occur so often."""
    counts = Counter()
    for word, number in word_counts.items():
        for character in word:
            counts[character] += number
    return counts


def too_few(counts: Counter, minimum: int, kept: int, option: str = "min_frequency", unit: str = "word") -> str:
    """The message where a minimum leaves fewer than two words or characters: it names one that would not.

    Args:
        counts: of all of them; kept: how many are left.
        option: what the minimum is called where the user gives it.
    """
    number = len(counts)
    if number < 2:
        return (
            f"the corpus has {number or 'no'} distinct {unit}{'s' if number != 1 else ''}, and at least two are needed"
        )
    second = counts.most_common(2)[1][1]
    half = sorted(counts.values(), reverse=True)[min(number, 100) - 1]
    return (
        f"{option} {minimum} leaves {kept or 'none'} of the {number:,} distinct {unit}s; the most frequent occurs "
        f"{max(counts.values()):,} times, and {option} {half} would keep {sum(n >= half for n in counts.values()):,} {unit}s"
        + (f", {second} at least two" if second != half else "")
    )
