"""What a finished run says about itself: tidy numbers, and the facts for its model card."""

import logging
import math

from transformers import PreTrainedTokenizerFast

from hftoolkit.tokenization.pipelines import kind_of
from hftoolkit.training import provenance
from hftoolkit.training.adaptation import exported, is_update, without_adapter

logger = logging.getLogger(__name__)

DIGITS = 7  # significant ones in all_results.json; float32 has no more


def tidy(results):
    """Round numbers, and name those that are not finite under `undefined` instead of hiding them.

    Example:
        tidy({"eval_loss": 2.34567891, "eval_f1": nan}) -> {"eval_loss": 2.345679, "eval_f1": None,
        "undefined": ["eval_f1"]}
    """
    undefined = []

    def rounded(value, name):
        if isinstance(value, dict):
            return {key: rounded(item, f"{name}.{key}" if name else key) for key, item in value.items()}
        if getattr(value, "ndim", None) == 0:  # a number of numpy or torch
            value = value.item()
        if not isinstance(value, float):
            return value
        if not math.isfinite(value):
            undefined.append(name)
            return None
        return float(f"{value:.{DIGITS}g}")

    tidied = rounded(results, "")
    if undefined:
        logger.warning("not a finite number, written as null: %s", ", ".join(undefined))
        tidied["undefined"] = undefined
    return tidied


def baseline_table(baselines):
    """Baselines as name -> {metric: value}; a bare number is a loss on the evaluation data.

    Example:
        {"unigram_loss": 5.1, "one_class": {"eval_accuracy": 0.6}}
        -> {"unigram": {"eval_loss": 5.1}, "one class": {"eval_accuracy": 0.6}}
    """
    return {
        name.removesuffix("_loss").replace("_", " "): found if isinstance(found, dict) else {"eval_loss": found}
        for name, found in baselines.items()
        if found is not None
    }


def first_record(args, others, data_summary):
    """What run.json knows before the first step."""
    return {
        "given": vars(args).get("given_arguments"),  # set by parse_arguments
        "arguments": provenance.all_arguments(args, others),
        "command": provenance.command(),
        "versions": provenance.versions(),
        "seed": args.seed,
        "threads": provenance.threads(),
        "processes": args.world_size,
        "hardware": provenance.hardware(args.device),
        "data": data_summary,
        "git_commit": provenance.git_commit(),
    }


def card_facts(trainer, others, record, results):
    """Everything a model card may quote; nothing that was not measured or given."""
    model, args, tokenizer = without_adapter(exported(trainer.model)), trainer.args, trainer.processing_class
    measured = {key: value for key, value in results.items() if key not in ("baselines", "undefined")}
    config = getattr(model, "config", None)
    facts = {key: record[key] for key in ("data", "given", "versions", "hardware", "wall_seconds", "cpu_seconds")}
    return facts | {
        "name": (args.hub_model_id or str(args.output_dir)).rstrip("/").rsplit("/", 1)[-1],
        "repo_id": _repo_id(trainer),
        "model_class": type(model).__name__,
        "parameters": sum(weight.numel() for name, weight in model.named_parameters() if not is_update(name)),
        "config": config.to_dict() if config is not None else {},
        "tokenizer": {} if tokenizer is None else _tokenizer_facts(tokenizer),
        "hyperparameters": provenance.hyperparameters(args, others),
        "results": measured,
        "baselines": _with_perplexity(baseline_table(results.get("baselines", {})), measured),
        "seed": args.seed,
        "steps": record["steps"],
        "tokens_seen": record.get("tokens_seen"),
        "command": record["command"],
    }


def _with_perplexity(table, measured):
    """The baselines with their perplexities, which follow from their losses, where the model's own is reported."""
    if "eval_perplexity" not in measured:
        return table
    return {
        name: {"eval_perplexity": math.exp(min(found["eval_loss"], 700.0))} | found if "eval_loss" in found else found
        for name, found in table.items()
    }


def _repo_id(trainer):
    """`user/name` where the model is, or is meant to be, on the Hub; None where no user is known."""
    # Trainer asks the Hub for the user when a push is wanted, and leaves hub_model_id None otherwise.
    named = trainer.hub_model_id or trainer.args.hub_model_id or ""
    return named if "/" in named else None


def _tokenizer_facts(tokenizer):
    facts = {"class": type(tokenizer).__name__}
    return facts | ({"kind": kind_of(tokenizer)} if isinstance(tokenizer, PreTrainedTokenizerFast) else {})


def attempt(what, function, *args, **kwargs):
    """Call what a run can do without; its failure is logged and is no reason to lose the run."""
    try:
        function(*args, **kwargs)
    except Exception:
        logger.warning("%s could not be made; the run goes on without it", what, exc_info=True)
