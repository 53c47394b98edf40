"""Model cards: a template of model_cards/ filled with what a run has measured, and metadata that the Hub reads.

What is missing or not finite reads "not measured". Text from outside is escaped, so that a name can neither add HTML
or a table cell nor end the metadata; tokens are removed, and paths shortened to their last part.
"""

import importlib.resources
import json
import math
import numbers
import os
import re
import shlex
import unicodedata
from pathlib import Path

from hftoolkit.errors import UserError
from hftoolkit.private_text import without_folders, without_secrets

NOT_MEASURED = "not measured"
PIPELINE_TAGS = {
    "CausalLM": "text-generation",
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "MaskedLM": "fill-mask",
    "QuestionAnswering": "question-answering",
    "ImageClassification": "image-classification",
    "Seq2SeqLM": "text-generation",
}
TASKS = (*PIPELINE_TAGS, "PreTraining", "NextSentencePrediction", "MultipleChoice")  # with an Auto class of their own
OTHER_NAMES = {  # of heads whose Auto class is called otherwise
    "TaskClassification": "MultipleChoice",
    "ConditionalGeneration": "Seq2SeqLM",
    "PrefixLM": "CausalLM",
}
TABLES = ("config", "tokenizer", "data", "given", "hyperparameters", "results", "baselines", "versions", "hardware")
COUNTED = ("documents", "tokens")  # may also be given the other way round: {"documents": {"train": 900}}
# Numbers among the results that say how the run went, not how good the model is.
NOT_A_METRIC = re.compile(r"train_.*|epoch|.*steps|.*tokens|.*_pairs|.*_(runtime|per_second|seconds|flos)")
METRIC_NOTES = {
    "loss": "nats per token, lower is better",
    "mlm_loss": "nats per masked token, lower is better",
    "mlm_perplexity": "per masked token, lower is better",
    "mlm_accuracy": "of masked tokens, higher is better",
    "text_loss": "nats per target token of text, lower is better",
    "text_accuracy": "of the target tokens of text, higher is better",
    "nsp_loss": "nats per pair, lower is better",
    "nsp_accuracy": "of pairs, higher is better",
    "perplexity": "per token, lower is better",
    "word_perplexity": "per word, lower is better",
    "bits_per_byte": "lower is better",
    "accuracy": "higher is better",
}


class CardError(UserError):
    """The model card could not be written; the model itself is not touched."""


class Plain(str):
    """Text of a card that is right as it stands."""


def write_card(folder, template_name, facts):
    """Write README.md into a model folder.

    Args:
        template_name: a file of model_cards/, such as "gpt".
        facts: what is known about the run, any of it may be missing: name, architecture, model_class, parameters,
            config, tokenizer, data (name, config, fingerprint; per split documents and tokens), given,
            hyperparameters, results, baselines ({name: {metric: value}}), versions, hardware, wall_seconds,
            cpu_seconds, steps, tokens_seen, command, and license, repo_id, seed where they are known.

    Returns:
        The path of the card.

    Raises:
        CardError: whatever goes wrong, so that a caller need catch nothing else to save a finished run.
    """
    path = Path(folder) / "README.md"
    try:
        text = render_card(template_name, facts, has_picture=(Path(folder) / "curves.png").is_file())
        temporary = path.with_name(".README.md.writing")
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except Exception as error:  # a card is never worth a run
        raise CardError(f"{path}: the model card was not written: {type(error).__name__}: {error}") from error
    return path


def card_of(model, otherwise="bert"):
    """Name of the template for a model: that of its architecture, or the one for what has none."""
    name = model.config.model_type.removeprefix("hft_")
    return name if (importlib.resources.files("hftoolkit.model_cards") / f"{name}.md").is_file() else otherwise


def render_card(template_name, facts, has_picture=False):
    """The text of a card: metadata between two lines of dashes, then the filled template."""
    import jinja2

    folder = importlib.resources.files("hftoolkit.model_cards")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None
        ),
        undefined=jinja2.ChainableUndefined,
        finalize=as_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": as_code, "words": _as_words, "duration": _as_duration, "metric": _as_metric}
    environment.filters |= {"shell": _as_shell, "python": lambda text: Plain(json.dumps(text)), "plain": Plain}
    known = _arrange(_clean(facts))
    template = environment.get_template(template_name.removesuffix(".md") + ".md")
    body = template.render(known | {"has_picture": has_picture})
    return f"---\n{_metadata(known).to_yaml()}\n---\n\n{without_secrets(body)}"


def as_markdown(value):
    """Text that shows `value` and nothing else, in a paragraph or a table cell of a Markdown page."""
    import jinja2

    if isinstance(value, Plain):
        return value
    if value is None or isinstance(value, jinja2.Undefined) or value == "":
        return NOT_MEASURED
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    text = re.sub(r"([\\`*\[\]|~$#!])", r"\\\1", value)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is no emphasis
    text = re.sub(r"^(?=[-+=])", r"\\", text)
    text = re.sub(r"^(\d+)(?=[.)] )", r"\1\\", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_code(value):
    """A value exactly as it is written in Python or YAML, in code style, in a table cell."""
    shown = as_markdown(value) if not isinstance(value, str | int | float | dict | list) else value
    if isinstance(shown, Plain) or shown == NOT_MEASURED:
        return Plain(NOT_MEASURED)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    return Plain(as_markdown(text) if re.search(r"[`|\\]", text) else f"`{text}`")


def _as_words(key):
    return key.replace("_", " ")


def _as_duration(seconds):
    if not isinstance(seconds, int | float):
        return Plain(NOT_MEASURED)
    minutes, rest = divmod(seconds, 60)
    return Plain(f"{seconds:.1f} s" if minutes < 2 else f"{int(minutes):,} min {rest:.0f} s")


def _as_metric(name, task="CausalLM"):
    note = METRIC_NOTES.get(re.sub("^(eval|validation|test)_", "", name))
    note = (
        "lower is better" if name.endswith("_loss") and note == METRIC_NOTES["loss"] and task != "CausalLM" else note
    )
    return Plain(as_code(name) + (f" ({note})" if note else ""))


def _as_shell(command):
    """One line for a shell; the command is a list of words, or a line."""
    words = shlex.join(map(str, command)) if isinstance(command, list) else command
    if not words or not isinstance(words, str):
        return Plain("# the command was not recorded")
    return Plain(("python " if words.split()[0].endswith(".py") else "") + words.replace("```", "'''"))


def _clean(value):
    """Plain Python values: numbers finite or None, text in one line without control characters, secrets and folders."""
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_clean(entry) for entry in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    shown = [" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(value)]
    text = "".join(c for c in shown if unicodedata.category(c) not in ("Cf", "Cs"))
    text = without_folders(without_secrets(" ".join(text.split())))
    return text if len(text) <= 500 else text[:497] + "..."


def _arrange(facts):
    """The names that templates use, from the facts of a run."""
    known = facts | {name: facts[name] if isinstance(facts.get(name), dict) else {} for name in TABLES}
    data, results = known["data"], known["results"]
    named = _counts(data)
    baselines = known["baselines"] or results.get("baselines", {})
    known["baselines"] = {name: found for name, found in baselines.items() if isinstance(found, dict)}
    known["results"] = {
        name: value
        for name, value in results.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not NOT_A_METRIC.fullmatch(name)
    }
    task = re.sub("^.*For", "", str(facts.get("model_class") or ""))
    task = OTHER_NAMES.get(task, task)
    name = str(facts.get("name") or facts.get("architecture") or "model")
    start = known["given"].get("model_name_or_path")
    return known | {
        "name": name,
        "model_id": facts.get("repo_id") or f"USER/{re.sub('[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'model'}",
        "auto_class": f"AutoModelFor{task}" if task in TASKS else "AutoModel",
        "pipeline_tag": "translation" if known["hyperparameters"].get("source_language") else PIPELINE_TAGS.get(task),
        "signatures": sorted({_clean(value) for name, value in results.items() if name.endswith("_signature")}),
        "task": task or "CausalLM",
        "splits": named,
        "counted": list(dict.fromkeys(kind for counts in named.values() for kind in counts)),
        "data_facts": [(k, v) for k, v in data.items() if k != "name" and not isinstance(v, dict | list)],
        "split_name": data.get("evaluated_split") or "validation",
        "metrics": list(known["results"])
        + sorted(
            {m for found in known["baselines"].values() for m in found} - set(known["results"]) if results else ()
        ),
        "chosen": known["hyperparameters"] or known["given"],
        "start": start,
    }


def _counts(data):
    """The numbers of each split, such as {"train": {"documents": 900}}."""
    found = {
        split: dict(counts) for split, counts in data.items() if isinstance(counts, dict) and split not in COUNTED
    }
    for kind in COUNTED:
        for split, count in data[kind].items() if isinstance(data.get(kind), dict) else ():
            found.setdefault(split, {})[kind] = count
    for split, counts in found.items():
        found[split] = {kind: count for kind, count in counts.items() if type(count) is int}
    return {split: counts for split, counts in found.items() if counts}


def _metadata(known):
    """What the Hub shows beside the card and searches in."""
    from huggingface_hub import EvalResult, ModelCardData

    data, name = known["data"], str(known["data"].get("name") or "unknown")
    on_hub = re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name) and not Path(name).exists()
    base = known["start"] if re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", str(known["start"])) else None
    place = dict(task_type=known["pipeline_tag"] or "other", dataset_name=name, dataset_split=known["split_name"])
    place |= dict(dataset_type=name if on_hub else re.sub("[^A-Za-z0-9._-]+", "-", name).strip("-") or "unknown")
    place |= dict(dataset_config=data.get("config"), dataset_revision=data.get("revision"))
    found = [EvalResult(**place, metric_type=key, metric_value=value) for key, value in known["results"].items()]
    return ModelCardData(
        license=known.get("license") or ("apache-2.0" if str(name).split(":")[0] == "builtin" and not base else None),
        library_name="transformers",
        pipeline_tag=known["pipeline_tag"],
        tags=["hftoolkit", *([known["architecture"]] if known.get("architecture") else [])],
        datasets=[name] if on_hub else None,
        base_model=base if base and not Path(base).exists() else None,
        model_name=known["name"],
        eval_results=found or None,
    )
