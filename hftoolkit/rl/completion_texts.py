"""The texts of sampled responses, as rewards and readers get them."""


def are_conversations(prompts):
    """Whether prompts are conversations, not texts."""
    return len(prompts) > 0 and not isinstance(prompts[0], str)


def completion_texts(tokenizer, found, prompts, stop_strings=None):
    """Texts of responses, without special tokens and without the string that ended them.

    Some tokenizers (Llama 2's) leave out the space before the first word of what they decode. After a prompt that is text
    a response is therefore what both together have behind the prompt; a message of a conversation is decoded alone.

    Args:
        tokenizer: the policy's.
        found: a Rollout.
        prompts: what was answered, texts or conversations.
        stop_strings: StopStrings, or None.

    Example: after "Answer:" the one token "\u2581Anna" is " Anna", and in a conversation "Anna".
    """

    def decoded(rows):
        return tokenizer.batch_decode(rows, skip_special_tokens=True)

    pairs = found.token_ids()
    if are_conversations(prompts):
        texts = decoded([response for _, response in pairs])
    else:
        begins, wholes = (
            decoded([prompt for prompt, _ in pairs]),
            decoded([[*prompt, *rest] for prompt, rest in pairs]),
        )
        texts = [
            whole.removeprefix(begin) if whole.startswith(begin) else decoded([response])[0]
            for begin, whole, (_, response) in zip(begins, wholes, pairs, strict=True)
        ]
    return texts if stop_strings is None else [stop_strings.cut(text) for text in texts]
