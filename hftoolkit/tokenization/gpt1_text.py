r"""The text cleaning that GPT-1 was pretrained with.

Source: openai/finetune-transformer-lm, commit f7c1330, text_utils.py, `text_standardize`: the same result, written
anew. The reference then splits words with spaCy's English rules, which is no part of this package: the tokenizers
here split at white space and punctuation, as the stock OpenAIGPTTokenizer does.
"""

import re

_DASHES_AND_DOTS = str.maketrans({"\u2014": "-", "\u2013": "-", "\u2015": "-", "\u2026": "...", "\u00b4": "'"})
_PUNCTUATION_RUN = re.compile(r"""([-~!";?+,()\\/*\[\]{}|_])\1*""")


def text_standardize(text: str) -> str:
    r"""Put spaces around runs of punctuation, make dashes and dots ASCII, and tidy white space.

    Example:
        'Wait\u2014what?!  "No\u2026"\n\n\nyes' gives 'Wait - what ? ! " No... " \n yes'
    """
    text = text.translate(_DASHES_AND_DOTS)
    text = _PUNCTUATION_RUN.sub(r" \g<0> ", text)
    text = re.sub(r"\s*\n\s*", " \n ", text)
    return re.sub(r"[^\S\n]+", " ", text).strip()
