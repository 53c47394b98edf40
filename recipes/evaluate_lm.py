"""Score a language model: perplexity per token and word, bits per byte, and minimal pairs.

    python recipes/evaluate_lm.py --model_name_or_path runs/gpt
    python recipes/evaluate_lm.py --model_name_or_path runs/gpt --minimal_pairs builtin

Papers: bits per byte as in Gao et al. 2020, https://arxiv.org/abs/2101.00027, Section 3.1; minimal pairs as in
Warstadt et al. 2020, https://aclanthology.org/2020.tacl-1.25. Works with every causal language model.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, MachineError, one_line_errors


@dataclass
class TaskArguments:
    split: Literal["train", "validation", "test"] = field(default="validation", metadata={"help": "part of --dataset"})
    max_evaluation_documents: int | None = field(default=None, metadata={"help": "none is all", "min": 1})
    window: int | None = field(
        default=None, metadata={"help": "tokens read at once; none is the model's limit", "min": 1}
    )
    stride: int | None = field(default=None, metadata={"help": "new tokens per window; none is half of it", "min": 1})
    batch_size: int = field(default=16, metadata={"help": "windows at a time", "min": 1})
    minimal_pairs: str | None = field(
        default=None, metadata={"help": "builtin, or BLiMP's JSON lines (.jsonl, .jsonl.gz or a folder of them)"}
    )
    output_file: str | None = field(default=None, metadata={"help": "JSON with all figures"})


def main(model_args, data_args, task_args):
    import json
    import os
    from pathlib import Path

    from transformers import AutoModelForCausalLM

    from hftoolkit.data.microworld import acceptability_pairs
    from hftoolkit.data.text import load_documents
    from hftoolkit.evaluation.minimal_pairs import evaluate_pairs, read_pairs
    from hftoolkit.evaluation.perplexity import evaluate_text
    from hftoolkit.loading import load_model, load_tokenizer

    # 1. Tokenizer, 2. data: texts, or pairs of sentences.
    tokenizer = load_tokenizer(model_args)
    if task_args.minimal_pairs == "builtin":
        pairs = acceptability_pairs(1000, seed=data_args.builtin_seed)
    elif task_args.minimal_pairs is not None:
        pairs = read_pairs(task_args.minimal_pairs)
    else:
        documents = load_documents(data_args)
        if task_args.split not in documents:
            raise DataError(f"{data_args.dataset} has no split {task_args.split!r}; it has {', '.join(documents)}")

    # 3. Model.
    model = load_model(AutoModelForCausalLM, model_args, tokenizer).eval()

    # 4. Score and show.
    if task_args.minimal_pairs is not None:
        results = evaluate_pairs(model, tokenizer, pairs, task_args.batch_size)
        rows = {"accuracy": results["accuracy"], "pairs": results["pairs"]} | results["by_paradigm"]
    else:
        chosen = documents[task_args.split].take(task_args.max_evaluation_documents or 10**12)
        texts = (row["text"] for row in chosen)
        options = {"window": task_args.window, "stride": task_args.stride, "batch_size": task_args.batch_size}
        results = rows = evaluate_text(model, tokenizer, texts, **options)
    for name, value in rows.items():
        print(f"{name:40} {value:>12,.4f}" if isinstance(value, float) else f"{name:40} {value:>12,}")
    if task_args.output_file is not None:
        path = Path(task_args.output_file)
        try:
            path.with_suffix(".tmp").write_text(json.dumps(results, indent=2) + "\n")
            os.replace(path.with_suffix(".tmp"), path)
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error}") from error
    return results


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
