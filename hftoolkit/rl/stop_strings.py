"""Texts that end a response wherever they fall in its tokens."""

import torch
from transformers import StoppingCriteria

CHARACTER_BYTES = 4  # of UTF-8 at most, and so tokens of a character at most


class StopStrings:
    """Finds out whether a response has just written one of some texts.

    Responses are decoded, so that any tokenizer will do and a text may begin and end inside of tokens; a token that
    writes the last character of the text is the last of the response, also where it writes more.

    Args:
        strings: the texts, none of them empty.
        tokenizer: the policy's.
    """

    def __init__(self, strings, tokenizer):
        self.strings, self.tokenizer = list(strings), tokenizer
        # Every token but a special one writes a byte or more; the rest is for what a tokenizer drops at the beginning.
        self.tail = CHARACTER_BYTES * (max(map(len, self.strings)) + 2)

    def end(self, rows):
        """Whether each response contains a text, where it did not one token before; (B,) booleans.

        Args:
            rows: token ids, the last of them those that have just been sampled; earlier ones than `tail` are not read.
        """
        texts = self.tokenizer.batch_decode([row[-self.tail :] for row in rows])
        return [any(string in text for string in self.strings) for text in texts]

    def cut(self, text):
        """A decoded response up to the first of the texts."""
        return text[: min((text.find(string) for string in self.strings if string in text), default=len(text))]


class EndsWithString(StoppingCriteria):
    """The same for `generate`; `lengths` (B,) tells after how many tokens each row ended, 0 where none of the texts did it.

    Args:
        strings: StopStrings.
        prompt_length: P, tokens of the padded prompts.
    """

    def __init__(self, strings, prompt_length):
        self.strings, self.prompt_length, self.lengths = strings, prompt_length, None

    def __call__(self, input_ids, scores, **kwargs):
        begin = max(self.prompt_length, input_ids.shape[1] - self.strings.tail)
        found = torch.tensor(self.strings.end(input_ids[:, begin:].tolist()), device=input_ids.device)
        if self.lengths is None:
            self.lengths = torch.zeros(len(input_ids), dtype=torch.long, device=input_ids.device)
        self.lengths[found & (self.lengths == 0)] = input_ids.shape[1] - self.prompt_length
        return found
