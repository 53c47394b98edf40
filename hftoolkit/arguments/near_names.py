"""The name that was probably meant: for misspelt keys, choices, commands and files."""

import difflib
import os

THRESHOLD = 0.55  # similarity below which a suggestion would only confuse
PREFIX_BONUS = 0.3  # people misspell ends more often than beginnings: adamww is adamw_torch, not adalomo
SHOWN = 60  # characters of a wrong value that a message repeats


def nearest(word, names):
    """Return the name most like `word`, or None if none is alike. Case and - or _ make no difference."""
    best_score, best = 0.0, None
    folded = _fold(word)
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(folded)
    for name in names:
        candidate = _fold(str(name))
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() < THRESHOLD:
            continue
        ratio = matcher.ratio()
        common = len(os.path.commonprefix([folded, candidate]))
        score = ratio + PREFIX_BONUS * common / max(1, len(folded))
        if ratio >= THRESHOLD and score > best_score:
            best_score, best = score, str(name)
    return best


def did_you_mean(word, names):
    """Return "; did you mean 'name'?", or nothing if no name is alike."""
    name = nearest(word, names)
    return f"; did you mean '{name}'?" if name else ""


def near_files(path):
    """Say what is near a path that does not exist: a file of a similar name, or what its folder holds.

    Example: near_files("data/trian.txt") -> "; did you mean 'data/train.txt'?"
    """
    folder, name = os.path.split(path.rstrip("/") or path)
    try:
        present = sorted(os.listdir(os.path.expanduser(folder) or "."))
    except (FileNotFoundError, NotADirectoryError):
        missing = near_files(folder) if folder and folder != path else ""
        return f"; there is no folder '{shown_text(folder)}'{missing}"
    except OSError as error:
        return f"; '{shown_text(folder or '.')}' cannot be listed: {error.strerror}"
    whole = {os.path.splitext(other)[0]: other for other in present} | {other: other for other in present}
    near = whole.get(nearest(name, whole))
    if near:
        return f"; did you mean '{os.path.join(folder, near)}'?"
    visible = [other for other in present if not other.startswith(".")]
    listed = ", ".join(shown_text(other) for other in visible[:5]) + (", ..." if len(visible) > 5 else "")
    return f"; '{folder or '.'}' holds {listed or 'nothing'}"


def shown_text(text, longest=SHOWN):
    """Make text fit for a one-line message: control characters escaped, long text cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _fold(word):
    return word.lower().replace("-", "_")
