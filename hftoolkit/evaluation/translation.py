"""Translate with an encoder-decoder, and score translations with sacrebleu.

Papers: Papineni et al. 2002, https://aclanthology.org/P02-1040 (BLEU); Popovic 2015, https://aclanthology.org/W15-3049
(chrF); Post 2018, https://aclanthology.org/W18-6319 (sacrebleu and its signature, without which a score says little).
"""

import os
from pathlib import Path

from hftoolkit.errors import CheckpointError, MachineError
from hftoolkit.evaluation.alignment import draw_alignments

EXTRA_TOKENS = 50  # a translation may be so much longer than its source: Vaswani et al. 2017, Section 6.1
DRAWN, DRAWN_TOKENS = 3, 16  # sentences in the picture of the attention, and tokens of one at the most
MANY_LANGUAGES = ("mbart", "m2m_100", "nllb-moe", "seamless_m4t", "seamless_m4t_v2")  # texts begin with their language
STEP = 16  # for that, the length of the source is rounded up to a multiple of this: such sources share a limit


def translate(model, tokenizer, texts, *, max_length=512, batch_tokens=4096, **generation):
    """Translations of texts, in their order.

    Texts of like length are translated together; which others stand in a batch changes nothing but rounding.

    Args:
        max_length: tokens of a source that are read, the end of sequence included.
        batch_tokens: of the sources of a batch, with its padding, at most (one text at least).
        generation: of `generate`, such as num_beams=4 and length_penalty=0.6.

    Returns:
        (list of str, number of translations that were cut off without an end of sequence).
    """
    import torch

    if not len(texts):
        return [], 0
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    rows = [ids[: max_length - 1] + [tokenizer.eos_token_id] for ids in rows]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    found, endless, was_training = [None] * len(rows), 0, model.training
    model.eval()
    start = 0
    while start < len(order):
        longest = -(-len(rows[order[start]]) // STEP) * STEP
        batch = order[start : start + max(1, batch_tokens // longest)]
        batch = [row for row in batch if len(rows[row]) > longest - STEP]
        start += len(batch)
        inputs = tokenizer.pad({"input_ids": [rows[row] for row in batch]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_length=_most_tokens(model, longest),
                **{"do_sample": False} | generation,
            )
        written = output[:, 1:]  # without the start token, which can be the end of sequence too
        endless += int((written != tokenizer.eos_token_id).all(1).sum())
        for row, text in zip(batch, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            found[row] = text.strip()
    model.train(was_training)
    return found, endless


def _most_tokens(model, source_length):
    """Of a translation, its start token included; some models know only so many positions."""
    length, limit = 1 + source_length + EXTRA_TOKENS, getattr(model.config, "max_position_embeddings", None)
    return min(length, limit) if limit else length


def prepare_to_translate(model, languages, max_length):
    """Write into a model's config what it translates, and into its generation config how long a translation can be.

    Without such a length `generate` stops after 20 tokens, wherever the saved model is used.

    Args:
        languages: (of the source, of the target).
        max_length: tokens of a source.

    Raises:
        MachineError: sacrebleu is not installed, which is needed in the end.
    """
    _metrics()
    model.config.update({"source_language": languages[0], "target_language": languages[1]})
    generation = model.generation_config
    generation.max_length = max(_most_tokens(model, max_length), generation.max_length or 0)


def _metrics():
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MachineError("BLEU needs sacrebleu: pip install 'hftoolkit[text]'") from error
    return ("bleu", BLEU()), ("chrf", CHRF())


def score_translations(hypotheses, references):
    """BLEU and chrF of a corpus with one reference each, in points up to 100, with their signatures.

    Raises:
        ValueError: another number of references.
        MachineError: sacrebleu is not installed.

    Example:
        score_translations(["A dog runs."], ["A dog runs."])
        -> {"bleu": 100.0, "chrf": 100.0, "bleu_signature": "nrefs:1|case:mixed|...", "chrf_signature": ...}
    """
    metrics = _metrics()
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} translations, but {len(references)} references")
    scores = {}
    for name, metric in metrics:
        scores[name] = metric.corpus_score(list(hypotheses), [list(references)]).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores


def evaluate_translations(trainer, splits, max_length, **generation):
    """Translate splits of pairs with a trainer's model, and score the translations.

    With several processes each translates its share. The main one writes translations-SPLIT.txt and alignments.png,
    the attention in the first short pairs, into the folder of the run.

    Args:
        splits: name -> Dataset with the columns source and target.
        max_length, generation: as for translate.

    Returns:
        BLEU, chrF, their signatures and the number of pairs, as `validation_bleu` and so on.
    """
    from accelerate.utils import gather_object

    model, folder, found = _whole_model(trainer), Path(trainer.args.output_dir), {}
    rank, world, tokenizer = trainer.args.process_index, trainer.args.world_size, trainer.processing_class
    for split, pairs in splits.items():
        mine = range(rank, len(pairs), world)
        sources = [pairs["source"][row] for row in mine]
        written, endless = translate(model, tokenizer, sources, max_length=max_length, **generation)
        if world > 1:
            shares = gather_object([(list(mine), written, endless)])
            by_row = dict(pair for rows, share, _ in shares for pair in zip(rows, share, strict=True))
            written, endless = [by_row[row] for row in range(len(pairs))], sum(number for _, _, number in shares)
        if trainer.is_world_process_zero():
            _write_lines(folder / f"translations-{split}.txt", written)
        scores = score_translations(written, pairs["target"]) | {"pairs": len(pairs)}
        scores |= {"cut_off": endless} if endless else {}
        found |= {f"{split}_{name}": value for name, value in scores.items()}
    if trainer.is_world_process_zero() and splits:
        shown = short_pairs(next(iter(splits.values())), tokenizer, DRAWN, DRAWN_TOKENS)
        draw_alignments(model, tokenizer, shown, folder / "alignments.png")
    return found


def _whole_model(trainer):
    """The trainer's model; where each process has a share of its weights (FSDP), the saved one, whole in each."""
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.unwrap_model(trainer.model)
    from transformers import AutoModelForSeq2SeqLM

    trainer.accelerator.wait_for_everyone()  # the main process has saved it
    return AutoModelForSeq2SeqLM.from_pretrained(trainer.args.output_dir).to(trainer.args.device)


def _write_lines(path, texts):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(" ".join(text.split()) + "\n" for text in texts), encoding="utf-8")
    os.replace(temporary, path)


def short_pairs(pairs, tokenizer, number, most_tokens):
    """The first pairs of which no side has more tokens; of too few, the shortest."""
    sources = tokenizer(pairs["source"][:], add_special_tokens=False)["input_ids"]
    targets = tokenizer(text_target=pairs["target"][:], add_special_tokens=False)["input_ids"]
    longest = [max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
    rows = [row for row, length in enumerate(longest) if length <= most_tokens]
    if len(rows) < number:
        rows = sorted(range(len(longest)), key=longest.__getitem__)
    return [(pairs["source"][row], pairs["target"][row]) for row in rows[:number]]


def require_direction(source, languages, revision=None):
    """Refuse to train a checkpoint the other way round than it translates, or one that must be told the languages.

    Args:
        source: folder or Hub id of the model to start from, or None.
        languages: (of the source, of the target).
        revision: of a Hub id.

    Raises:
        CheckpointError: its config names the two languages in the other order, or it is a model of many languages.
    """
    from transformers import PretrainedConfig

    if source is None:
        return
    try:
        config, _ = PretrainedConfig.get_config_dict(Path(source).expanduser().as_posix(), revision=revision)
    except OSError:
        return  # load_model says what is wrong
    if config.get("model_type") in MANY_LANGUAGES:
        raise CheckpointError(
            f"{source} is of type {config['model_type']!r}, whose texts begin with the code of their language, which is "
            "not written here; start from a model of two languages, such as Opus-MT's (marian), or from T5"
        )
    known = config.get("source_language"), config.get("target_language")
    if known == languages[::-1]:
        raise CheckpointError(
            f"{source} translates {known[0]} to {known[1]}, but --source_language {languages[0]} --target_language "
            f"{languages[1]} is the other way round; exchange the two, or start from another model"
        )
