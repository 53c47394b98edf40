"""Does a recurrent language model keep the number of a subject until its verb, and in which unit?

Papers: Linzen et al. 2016, https://aclanthology.org/Q16-1037; Lakretz et al. 2019, https://aclanthology.org/N19-1002,
Sections 2 and 3: a verb form is right if it is likelier than the other; a second noun of the other number between the two
attracts; units are removed one by one, and what one costs is what only it knows.
Shapes: B = sentences, T = tokens, H = hidden size.
"""

import random

import torch

NOUNS = ["boy", "girl", "man", "guard", "thief", "car"]
PLURALS = {"man": "men", "thief": "thieves"}
VERBS = ("greets greet", "sees see", "waits wait")
LINKS = ["near", "behind"]
ADVERBS = ["today", "often"]
WORDS = ["<eos>", "the", *NOUNS, *(PLURALS.get(noun, f"{noun}s") for noun in NOUNS), *LINKS, *ADVERBS]
WORDS += [form for pair in VERBS for form in pair.split()]
IDS = {word: number for number, word in enumerate(WORDS)}
CONDITIONS = tuple(f"{subject}-{other}" for subject in ("singular", "plural") for other in ("singular", "plural"))


def noun(word, is_plural):
    """The form of a noun."""
    return PLURALS.get(word, f"{word}s") if is_plural else word


def sentence(rng, subject=None, other=None, phrases=None):
    """A sentence of the generated language, and its verb's place and other form.

    Args:
        rng: random.Random.
        subject, other: whether the subject, and the last noun before the verb, is plural; None is drawn.
        phrases: nouns between subject and verb, None is 0, 1 or 2.

    Returns:
        (words, place of the verb, the verb's wrong form).

    Example:
        (["the", "boy", "near", "the", "cars", "greets", "today"], 5, "greet")
    """
    subject = rng.random() < 0.5 if subject is None else subject
    words = ["the", noun(rng.choice(NOUNS), subject)]
    count = rng.choice((0, 0, 1, 2)) if phrases is None else phrases
    for number in range(count):
        is_last = number == count - 1 and other is not None
        words += [rng.choice(LINKS), "the", noun(rng.choice(NOUNS), other if is_last else rng.random() < 0.5)]
    forms = rng.choice(VERBS).split()
    place = len(words)
    words += [forms[subject], rng.choice(ADVERBS)]
    return words, place, forms[not subject]


def test_items(number=100, phrases=1, seed=1):
    """{condition: list of (words, place, wrong form)}; "singular-plural" is a singular subject and a plural attractor."""
    rng = random.Random(seed)
    return {
        condition: [
            sentence(rng, *(part == "plural" for part in condition.split("-")), phrases) for _ in range(number)
        ]
        for condition in CONDITIONS
    }


def train_model(steps=300, hidden_size=32, cell_type="lstm", seed=0, batch_size=32):
    """A small language model of the generated language: (model, its last loss in nats per token)."""
    from hftoolkit.models.modeling_rnn import HftRnnConfig, HftRnnForCausalLM

    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = dict(vocab_size=len(WORDS), embedding_size=16, hidden_size=hidden_size, cell_type=cell_type)
        model = HftRnnForCausalLM(HftRnnConfig(**sizes, bidirectional=False, bos_token_id=0, eos_token_id=0)).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
        for _ in range(steps):
            rows = [[0, *(IDS[word] for word in sentence(rng)[0]), 0] for _ in range(batch_size)]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            real = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
            loss = model(ids, labels=ids.masked_fill(~real, -100)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval(), loss.item()


@torch.no_grad()
def margins(model, items):
    """How much likelier the right verb form is than the wrong one, in nats, (B,); the items are of equal length."""
    ids = torch.tensor([[0, *(IDS[word] for word in words[:place])] for words, place, _ in items])
    logits = model(ids, logits_to_keep=1, use_cache=False).logits[:, -1]
    right, wrong = (
        torch.tensor(column)
        for column in zip(*((IDS[words[place]], IDS[other]) for words, place, other in items), strict=True)
    )
    rows = torch.arange(len(items))
    return logits[rows, right] - logits[rows, wrong]


def agreement(model, items):
    """{condition: share of right forms}, their "mean", and the mean "margin"; without knowledge the mean is 0.5."""
    found = {condition: margins(model, rows) for condition, rows in items.items()}
    shares = {condition: float((values > 0).float().mean()) for condition, values in found.items()}
    margin = float(torch.cat(list(found.values())).mean())
    return shares | {"mean": sum(shares.values()) / len(shares), "margin": margin}


class WithoutUnit:
    """While open, a unit of the last layer is 0 for all that reads it: the layer itself, and the output layer."""

    def __init__(self, model, unit):
        rnn = model.base_model.layers[-1].forward_rnn
        self.columns = [weight.data[:, unit] for weight in (rnn.weight_hh_l0, model.lm_head.weight)]

    def __enter__(self):
        self.kept = [column.clone() for column in self.columns]
        for column in self.columns:
            column.zero_()

    def __exit__(self, *error):
        for column, kept in zip(self.columns, self.kept, strict=True):
            column.copy_(kept)


def ablations(model, items):
    """What every unit of the last layer is worth: `agreement` without it, a list over the units."""
    found = []
    for unit in range(model.config.output_size):
        with WithoutUnit(model, unit):
            found.append(agreement(model, items))
    return found
