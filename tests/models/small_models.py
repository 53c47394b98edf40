"""A small model of every head of every architecture, and batches for it: what the laws of the tests run over.

A new architecture adds one entry to SMALL (and to LABELS, if it has a head with labels of a new form).
Shapes: B = rows, T = tokens of a row, C = classes.
"""

import copy
import importlib
import math

import torch

from hftoolkit.models import ARCHITECTURES

PAD, VOCAB = 0, 99
SIZES = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
GPT = SIZES | dict(max_position_embeddings=32, num_labels=3, pad_token_id=PAD)
GPT_DROPOUT = [f"{part}_dropout_prob" for part in ("embedding", "hidden", "attention_probs", "classifier")]
GPT |= dict.fromkeys(GPT_DROPOUT, 0.0)
BERT = SIZES | dict(max_position_embeddings=32, num_labels=3, pad_token_id=PAD)
BERT_DROPOUT = [name for name in GPT_DROPOUT if not name.startswith("embedding")]
BERT |= dict.fromkeys(BERT_DROPOUT, 0.0)
T5 = SIZES | dict(num_labels=3, pad_token_id=PAD, head_dim=6, num_decoder_layers=3, intermediate_size=48)
T5 |= dict(relative_attention_max_distance=20) | dict.fromkeys(BERT_DROPOUT, 0.0)
T5_1_0 = dict(hidden_act="relu", is_gated=False, tie_word_embeddings=True)
TRANSFORMER = SIZES | dict(pad_token_id=PAD, intermediate_size=48, label_smoothing=0.0)
TRANSFORMER_DROPOUT = [f"{part}_dropout_prob" for part in ("hidden", "attention_probs", "activation")]
TRANSFORMER |= dict.fromkeys(TRANSFORMER_DROPOUT, 0.0)
PRE_NORM = dict(norm_position="pre", position_layout="halves", num_decoder_layers=3)
WORDS = dict(vocab_size=VOCAB, num_labels=3, pad_token_id=PAD)
DAN = WORDS | dict(embedding_size=24, hidden_size=32, num_hidden_layers=2, word_dropout=0.0)
TEXTCNN = WORDS | dict(embedding_size=24, num_filters=12, filter_sizes=[2, 3], classifier_dropout_prob=0.0)
RNN = WORDS | dict(embedding_size=24, hidden_size=32, num_hidden_layers=2)
RNN_DROPOUT = [f"{part}_dropout_prob" for part in ("embedding", "hidden", "weight", "classifier")]
GRU = dict(cell_type="gru", bidirectional=False, pooling="attention", embedding_size=32)
NNLM = dict(vocab_size=VOCAB, embedding_size=32, hidden_size=32, context_size=3, pad_token_id=PAD)
SEQ2SEQ = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, pad_token_id=PAD)
SEQ2SEQ_DROPOUT = [f"{part}_dropout_prob" for part in ("embedding", "hidden")]
SEQ2SEQ |= dict.fromkeys(SEQ2SEQ_DROPOUT, 0.0)
BAHDANAU = dict(attention_type="additive", cell_type="gru", num_decoder_layers=1, bridge="dense")
ELMO = dict(num_labels=3, pad_token_id=PAD, hidden_size=32, projection_size=12, character_size=5, num_highways=2)
ELMO |= dict(filter_widths=[1, 3], filter_counts=[6, 8], max_characters=9, num_words=60, num_task_filters=4)
ELMO_DROPOUT = ["hidden_dropout_prob", "task_dropout_prob"]
ELMO |= dict.fromkeys(ELMO_DROPOUT, 0.0) | dict(task_hidden_size=8, freeze_bilm=False)

SMALL = {  # architecture -> variant -> config without dropout
    "gpt": {"gpt2": GPT | dict(norm_order="pre"), "gpt1": GPT | dict(norm_order="post")},
    "bert": {"bert": BERT},
    "t5": {"t5_1.0": T5 | T5_1_0, "t5_1.1": T5},
    "transformer": {"transformer_post": TRANSFORMER, "transformer_pre": TRANSFORMER | PRE_NORM},
    "word2vec": {"word2vec": dict(vocab_size=VOCAB, hidden_size=32, window_size=2, pad_token_id=PAD)},
    "bow": {"bow": WORDS},
    "dan": {"dan": DAN},
    "textcnn": {"textcnn": TEXTCNN},
    "nnlm": {"nnlm": NNLM},
    "rnn": {"lstm": RNN | dict(projection_size=12, pooling="mean"), "gru": RNN | GRU},
    "elmo": {"elmo": ELMO},
    "seq2seq": {"luong": SEQ2SEQ, "bahdanau": SEQ2SEQ | BAHDANAU},
}
DROPOUT = {"gpt": dict.fromkeys(GPT_DROPOUT, 0.5), "bert": dict.fromkeys(BERT_DROPOUT, 0.5)}
DROPOUT |= {"t5": DROPOUT["bert"], "transformer": dict.fromkeys(TRANSFORMER_DROPOUT, 0.5)}
DROPOUT |= dict.fromkeys(("bow", "dan", "textcnn"), {"word_dropout": 0.5}) | {"rnn": dict.fromkeys(RNN_DROPOUT, 0.5)}
DROPOUT |= {"seq2seq": dict.fromkeys(SEQ2SEQ_DROPOUT, 0.5)}
DROPOUT["nnlm"] = {"hidden_dropout_prob": 0.5}
DROPOUT["word2vec"] = {}  # it drops nothing
DROPOUT["elmo"] = dict.fromkeys(ELMO_DROPOUT, 0.5)
ZERO_GRADIENT = {  # by head, "" for all: what shifts alike everything that a softmax compares
    "": ("k_proj.bias",),
    "AutoModelForQuestionAnswering": ("qa_outputs.bias", "layers.1.mlp_norm.bias"),
    "AutoModelForMultipleChoice": ("choice_score.bias", "task_score.bias"),
}
CAUSAL = ("gpt", "nnlm")
WITHOUT_ATTENTION = ("word2vec", "bow", "dan", "textcnn", "nnlm", "rnn", "elmo", "seq2seq")  # of transformers' kind
RECURRENT = (
    "nnlm",
    "rnn",
    "elmo",
    "seq2seq",
)  # whose kernels stay as they are when compiled, and whose caches hold a state
READS_CHARACTERS = ("elmo",)  # which are ids of bytes and make words: no vectors can stand in for them
UNSCALED = (
    "t5",
)  # nothing divides the scores of the attention: with random weights numerical noise is ten times larger
READS_AND_WRITES = (
    "t5-AutoModel",
    "transformer-AutoModel",
    "seq2seq-AutoModel",
    "AutoModelForSeq2SeqLM",
)  # heads that take decoder_input_ids


def neighbours(ids, mask):
    """For a model that reads characters: at every token of a word the next and the previous word, of 50."""
    real = (mask != 0) & (ids != 32)
    return dict(labels=(ids % 50).masked_fill(~real, -100), backward_labels=((ids + 7) % 50).masked_fill(~real, -100))


LABELS = {  # one label of every form; -100 at padding, and at a first token, which only padding could predict
    "AutoModelForCausalLM": lambda ids, mask: dict(labels=ids.masked_fill((mask == 0) | (mask.cumsum(-1) == 1), -100)),
    # One word in each row: without num_pairs_in_batch, which Trainer does not know, the words tell what a pair weighs.
    "AutoModelForPreTraining": lambda ids, mask: dict(
        labels=ids.masked_fill((mask == 0) | (mask.cumsum(-1) > 1), -100), next_sentence_label=ids[:, 1] % 2
    ),
    "elmo-AutoModelForPreTraining": neighbours,
    "AutoModelForMaskedLM": lambda ids, mask: dict(labels=ids.masked_fill((mask == 0) | (ids % 2 == 0), -100)),
    "AutoModelForSeq2SeqLM": lambda ids, mask: dict(labels=written(ids, mask)),
    "AutoModelForNextSentencePrediction": lambda ids, mask: dict(labels=ids[:, 1] % 2),
    "AutoModelForSequenceClassification": lambda ids, mask: dict(labels=ids[:, 1] % 3),
    "AutoModelForTokenClassification": lambda ids, mask: dict(labels=(ids % 3).masked_fill(mask == 0, -100)),
    "AutoModelForQuestionAnswering": lambda ids, mask: dict(  # the whole row is the answer
        start_positions=mask.argmax(-1), end_positions=mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
    ),
    "AutoModelForMultipleChoice": lambda ids, mask: dict(labels=ids[:, 1] % 2),
}
# GPT's head for tasks has the language model's loss beside its own, with half the weight.
GUESS = {  # the loss of a head that knows nothing, by the sizes of the vocabulary and of a row
    "AutoModelForCausalLM": lambda words, tokens: math.log(words),
    "AutoModelForPreTraining": lambda words, tokens: math.log(2 * words),
    "AutoModelForMaskedLM": lambda words, tokens: math.log(words),
    "AutoModelForSeq2SeqLM": lambda words, tokens: math.log(words),
    "AutoModelForNextSentencePrediction": lambda words, tokens: math.log(2),
    "AutoModelForSequenceClassification": lambda words, tokens: math.log(3),
    "AutoModelForTokenClassification": lambda words, tokens: math.log(3),
    "AutoModelForQuestionAnswering": lambda words, tokens: math.log(tokens),
    "AutoModelForMultipleChoice": lambda words, tokens: math.log(2),
    "elmo-AutoModelForPreTraining": lambda words, tokens: math.log(ELMO["num_words"]),
    "gpt-AutoModelForMultipleChoice": lambda words, tokens: math.log(2) + math.log(words) / 2,
}


def written(ids, mask):
    """The text that an encoder-decoder is to write: each row's words but the last third, turned round; -100 after it."""
    labels = torch.full_like(ids, -100)
    for target, row, real in zip(labels, ids, mask.bool(), strict=True):
        words = row[real].flip(0)[: (int(real.sum()) * 2 + 2) // 3]
        target[: len(words)] = words
    return labels


class Head:
    """One head of one variant of one architecture."""

    def __init__(self, architecture, variant, auto):
        self.architecture, self.variant, self.auto = architecture, variant, auto
        self.module = importlib.import_module(f"hftoolkit.models.modeling_{architecture}")
        self.model_class, self.config_class = (self._class(name) for name in (auto, "AutoConfig"))

    @property
    def writes(self):
        """Whether a second text is read, by a decoder."""
        return self.auto in READS_AND_WRITES or f"{self.architecture}-{self.auto}" in READS_AND_WRITES

    @property
    def is_causal(self):
        """Whether no answer depends on later tokens."""
        return self.architecture in CAUSAL or self.auto == "AutoModelForCausalLM"

    def _class(self, name):
        return getattr(self.module, self.module.AUTO_MAP[name].split(".")[1])

    def __str__(self):
        return f"{self.variant}-{self.auto.removeprefix('Auto')}"

    def config(self, **changes):
        return self.config_class(**SMALL[self.architecture][self.variant] | changes)

    def model(self, seed=0, **changes):
        """In evaluation mode, every parameter moved by N(0, 0.3): at the default init wrong models pass."""
        torch.manual_seed(seed)
        return randomise(self.model_class(self.config(**changes)), seed)

    def inputs(self, batch):
        """The batch in the shape of this head: multiple choice reads each row in two versions, (B, 2, T).

        An encoder-decoder also gets what it has written so far, padded on the side on which the batch is.
        """
        if self.writes:
            ids, mask = batch["input_ids"], batch["attention_mask"]
            words = written(ids, mask)
            if (mask[:, 0] == 0).any():
                places = (words != -100).long().argsort(dim=1, stable=True)
                words = words.gather(1, places)
            real = words != -100
            return batch | dict(decoder_input_ids=words.masked_fill(~real, PAD), decoder_attention_mask=real.long())
        if self.auto != "AutoModelForMultipleChoice":
            return batch
        ids, mask = batch["input_ids"], batch["attention_mask"]
        other = torch.where(mask.bool() & (ids > 5), ids - 1, ids)
        return dict(input_ids=torch.stack([ids, other], 1), attention_mask=torch.stack([mask, mask], 1))

    def guess(self, words, tokens):
        """The first loss, of a model that knows nothing."""
        return GUESS.get(f"{self.architecture}-{self.auto}", GUESS[self.auto])(words, tokens)

    def labelled(self, batch):
        """The batch with the labels of this head, if it takes any."""
        labels = LABELS.get(f"{self.architecture}-{self.auto}", LABELS.get(self.auto, lambda ids, mask: {}))
        inputs = batch if self.auto == "AutoModelForSeq2SeqLM" else self.inputs(batch)  # the decoder reads the labels
        return inputs | labels(batch["input_ids"], batch["attention_mask"])

    def unlabelled(self, batch):
        """The batch with labels that say nothing."""
        labelled, inputs = self.labelled(batch), self.inputs(batch)
        return labelled | {name: torch.full_like(labelled[name], -100) for name in labelled.keys() - inputs.keys()}


HEADS = [
    Head(architecture, variant, auto)
    for architecture in ARCHITECTURES
    for variant in SMALL[architecture]
    for auto in importlib.import_module(f"hftoolkit.models.modeling_{architecture}").AUTO_MAP
    if auto != "AutoConfig" and (variant, auto) != ("lstm", "AutoModelForCausalLM")  # which reads in both directions
]
HEADS_WITH_LOSS = [head for head in HEADS if head.auto in LABELS]
GENERATING = [head for head in HEADS if head.model_class.can_generate()]


def layers(model):
    """The blocks of a model, of an encoder-decoder those of both."""
    return [module for module in model.modules() if type(module).__name__ in model._no_split_modules]


def randomise(model, seed=0):
    """Move every parameter by N(0, 0.3); the model, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def batch(lengths=(12, 8, 1), side="right", seed=1):
    """Random rows of these lengths, padded on one side: input_ids and attention_mask, both (B, T)."""
    T = max(lengths)
    ids = torch.randint(5, VOCAB, (len(lengths), T), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(T) < torch.tensor(lengths).unsqueeze(1)).long()
    mask = mask.flip(1) if side == "left" else mask
    return dict(input_ids=ids.masked_fill(mask == 0, PAD), attention_mask=mask)


def answer(output):
    """What the head says: all its logits, or what a model without a head returns, (B, T, ...) or (B, ...)."""
    if "logits" in output:
        return output.logits
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    names = [("prediction_logits", "seq_relationship_logits"), ("last_hidden_state", "pooler_output")]
    tokens, row = next(pair for pair in names if pair[0] in output)
    if row not in output:
        return output[tokens]
    return torch.cat([output[tokens], output[row].unsqueeze(1).expand(-1, output[tokens].shape[1], -1)], dim=-1)


def real_answers(model, inputs):
    """The answer at every real position, or of every row."""
    with torch.no_grad():
        values = answer(model(**inputs))
    real = inputs.get("decoder_attention_mask", inputs["attention_mask"]).bool()
    return values[real] if values.dim() == 3 else values


def scalar(output):
    """A number whose gradient reaches everything, from any output: its loss, or a fixed random projection."""
    if output.get("loss") is not None:
        return output.loss
    values = answer(output)
    return (values * torch.randn(values.shape, generator=torch.Generator().manual_seed(3))).mean()


def gradients(model, **inputs):
    """The gradient of every parameter by name, from a copy of the model."""
    model = copy.deepcopy(model)
    scalar(model(**inputs)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_gradients_close(ours, theirs, tolerance):
    """Compare each gradient, measured by the largest number in it, or by 1% of the largest of all if that is more."""
    assert ours.keys() == theirs.keys()
    floor = 1e-2 * max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        scale = max(float(gradient.abs().max()), floor)
        error = float((ours[name] - gradient).abs().max()) / scale
        assert error <= tolerance, f"the gradient of {name} is not close: {error:.1e} of its largest number"
