"""Write contextual embeddings of texts to a file: of any layers, for tokens, words or whole texts.

    python recipes/extract_features.py --config bert/features --model_name_or_path google-bert/bert-base-cased --dataset DATA
    python recipes/extract_features.py --config bert/features --model_name_or_path google-bert/bert-base-cased --unit sentence --pooling mean

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 5.3: Table 7 names the choices of layers.
Input: texts (--dataset builtin, a file or folder, or a Hub id). Works with every encoder and decoder of AutoModel.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    output_file: str = field(default="features.parquet", metadata={"help": "ends with .parquet or .safetensors"})
    layer_choice: Literal[
        "embeddings", "second_to_last", "last", "sum_last_four", "weighted_sum_last_four", "concatenate_last_four",
        "weighted_sum_all", "layers",
    ] = field(default="concatenate_last_four", metadata={"help": "Table 7's choices; layers: those of --layers"})  # fmt: skip
    layers: list[int] = field(
        default_factory=list, metadata={"help": "layers to concatenate: 0 the embeddings, 1 the first, -1 the last"}
    )
    layer_weights: list[float] = field(
        default_factory=list, metadata={"help": "of a weighted sum, one per layer, from the lowest on"}
    )
    unit: Literal["token", "word", "sentence"] = field(default="word", metadata={"help": "what gets a vector"})
    pooling: Literal["first", "mean", "max", "cls"] = field(
        default="first",
        metadata={"help": "of a word's sub-words (first, mean, max) or a text's tokens (cls, mean, max)"},
    )
    split: Literal["all", "train", "validation", "test"] = field(
        default="all", metadata={"help": "part of --dataset; all: one after the other"}
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "tokens read at once, longer texts in windows; none is the model's limit", "min": 4},
    )
    batch_size: int = field(default=32, metadata={"help": "texts at a time", "min": 1})
    number_format: Literal["float32", "float16"] = field(
        default="float32", metadata={"help": "of the written numbers"}
    )


def main(model_args, data_args, task_args):
    import torch
    from datasets import concatenate_datasets
    from tqdm.auto import tqdm
    from transformers import AutoModel

    from hftoolkit.data.text import load_documents
    from hftoolkit.evaluation.feature_files import write_features
    from hftoolkit.evaluation.features import LayerChoice, extract_features
    from hftoolkit.loading import load_model, load_tokenizer

    # 1. Tokenizer.
    if model_args.model_name_or_path is None or data_args.streaming:
        raise DataError(
            "features come from a trained model, --model_name_or_path, and from texts that are not streamed"
        )
    tokenizer = load_tokenizer(model_args)

    # 2. Texts, in their order.
    splits = load_documents(data_args)
    if task_args.split not in ("all", *splits):
        raise DataError(f"{data_args.dataset} has no split {task_args.split!r}; it has {', '.join(splits)}")
    texts = concatenate_datasets(list(splits.values())) if task_args.split == "all" else splits[task_args.split]

    # 3. Model.
    model = load_model(AutoModel, model_args, tokenizer).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    selected = {"layers": task_args.layers, "weights": task_args.layer_weights}
    choice = LayerChoice(task_args.layer_choice, model.config.num_hidden_layers, **selected)

    # 4. Extract and write.
    options = {name: getattr(task_args, name) for name in ("unit", "pooling", "batch_size")}
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 512)
    options["max_length"] = task_args.max_length or limit
    found = extract_features(model, tokenizer, (row["text"] for row in texts), choice, **options)
    rows = ((row["text"], *features) for row, features in zip(texts, tqdm(found, total=len(texts)), strict=True))
    metadata = {"model": str(model_args.model_name_or_path), "layer_choice": task_args.layer_choice}
    metadata |= {"layers": str(choice.layers), "unit": task_args.unit, "pooling": task_args.pooling}
    half = task_args.number_format == "float16"
    counts = write_features(task_args.output_file, rows, unit=task_args.unit, half=half, metadata=metadata)
    print(f"{task_args.output_file}: " + ", ".join(f"{name} {number:,}" for name, number in counts.items()))
    return counts


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
