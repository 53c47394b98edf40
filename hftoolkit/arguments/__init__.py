"""Arguments of a recipe: a YAML file, then flags, into dataclasses; every mistake at once, before torch is imported.

    model_args, data_args, training_args = parse_arguments(ModelArguments, DataArguments, "transformers.TrainingArguments")

A stock class is given by its dotted name: its fields are read from the installed source, and it is imported and built
only when everything is right. A mistake ends the program with exit code 2 and one line per mistake:

    error  gpt.yaml:14:1  unknown key 'learnin_rate'; did you mean 'learning_rate'?
    error  gpt.yaml:21:12  'max_steps' must be a whole number >= 1 (or -1, the default), got 6.5
    2 problems; nothing was started.

Own dataclasses say in the metadata of a field: help, min, max, above, below, choices (see fields.Field).
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments.model_config import architectures
from hftoolkit.arguments.parsing import parse_arguments

__all__ = [
    "AdaptationArguments",
    "DataArguments",
    "EmbeddingArguments",
    "ExampleArguments",
    "ModelArguments",
    "parse_arguments",
]


@dataclass
class ModelArguments:
    """Which model, and which tokenizer."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "checkpoint to start from: a folder or owner/name on the Hub", "source": "model"},
    )
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit on the Hub", "name": True})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code that comes with a checkpoint (flag only)", "flag_only": True}
    )
    architecture: str | None = field(
        default=None, metadata={"help": "model to build from scratch", "choices": architectures}
    )
    model_config: dict = field(
        default_factory=dict, metadata={"help": "sizes of the model: fields of the architecture's config class"}
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "a folder, owner/name on the Hub, or a kind to train: byte_bpe, gpt1_bpe, wordpiece, unigram, word, "
            "character, byte",
            "source": "tokenizer",
        },
    )
    tokenizer_vocab_size: int = field(
        default=8192, metadata={"help": "vocabulary of a tokenizer that is trained", "min": 1}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "kernel of the attention",
            "choices": ("eager", "sdpa", "flash_attention_2", "flex_attention"),
        },
    )
    dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata={"help": "number format of the weights"})


@dataclass
class DataArguments:
    """Which documents."""

    dataset: str = field(
        default="builtin",
        metadata={
            "help": "builtin, builtin:in_context, a file or folder, or owner/name on the Hub",
            "source": "dataset",
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "configuration of a Hub data set", "name": True}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "branch, tag or commit of a Hub data set", "name": True}
    )
    text_column: str = field(default="text", metadata={"help": "column that holds the text"})
    document_separator: Literal["blank_line", "line", "file", "wikitext"] = field(
        default="blank_line",
        metadata={
            "help": "where a document ends in plain text; wikitext: before a line ` = Title = ` (WikiText's files)"
        },
    )
    validation_fraction: float = field(
        default=0.05,
        metadata={"help": "share held out where the source has no validation split", "min": 0, "below": 1},
    )
    max_documents: int | None = field(default=None, metadata={"help": "read no more documents than this", "min": 1})
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "what a row that cannot be read does: stop the run, or be skipped and counted"},
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows of a split that may be skipped", "min": 1})
    max_document_characters: int | None = field(
        default=10_000_000,
        metadata={"help": "read no more of a document (of a file that is one, by document_separator: all)", "min": 1},
    )
    builtin_documents: int = field(default=20000, metadata={"help": "documents of the builtin data set", "min": 1})
    builtin_seed: int = field(default=0, metadata={"help": "seed of the builtin data set", "min": 0})
    streaming: bool = field(default=False, metadata={"help": "read while training, for data larger than the memory"})
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "processes that prepare the data", "min": 1}
    )


@dataclass
class ExampleArguments:
    """Which labelled examples to fine-tune on."""

    dataset: str = field(
        default="builtin",
        metadata={
            "help": "builtin, a file or folder in the official format, or owner/name on the Hub",
            "source": "dataset",
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "configuration of a Hub data set", "name": True}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "branch, tag or commit of a Hub data set", "name": True}
    )
    max_examples: int | None = field(default=None, metadata={"help": "read no more training examples", "min": 1})
    builtin_examples: int = field(default=2000, metadata={"help": "training examples of the builtin data", "min": 1})
    builtin_seed: int = field(default=0, metadata={"help": "seed of the builtin data set", "min": 0})
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "processes that prepare the data", "min": 1}
    )


@dataclass
class AdaptationArguments:
    """What fine-tuning changes in a pretrained model."""

    adaptation: Literal["full", "frozen", "lora"] = field(
        default="full",
        metadata={"help": "all weights; only the new head; or low-rank updates (PEFT) and the head"},
    )
    lora_rank: int = field(default=8, metadata={"help": "rank of the low-rank updates", "min": 1})
    lora_alpha: float = field(default=16.0, metadata={"help": "they are scaled by alpha / rank", "above": 0})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before them", "min": 0, "below": 1})
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "each layer's learning rate is this times that of the layer above", "above": 0, "max": 1},
    )


@dataclass
class EmbeddingArguments:
    """Which word vectors a model starts from; the arguments of a recipe's task inherit these."""

    embeddings: str | None = field(
        default=None,
        metadata={
            "help": "word vectors to start from: word2vec's format, GloVe's, or a run's folder",
            "must_exist": True,
        },
    )
    freeze_embeddings: bool = field(default=False, metadata={"help": "leave them as they are"})
