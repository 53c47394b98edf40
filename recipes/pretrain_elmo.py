"""Pretrain ELMo: a language model in each direction over words that are read as characters.

    python recipes/pretrain_elmo.py --config elmo/tiny --output_dir runs/elmo
    python recipes/pretrain_elmo.py --config elmo/wiki_cpu --dataset corpus.txt --output_dir runs/elmo-wiki
    python recipes/finetune_tagging.py --config elmo/tagging --model_name_or_path you/elmo-wiki --dataset DATA

Paper: Peters et al. 2018, https://arxiv.org/abs/1802.05365, Sections 3.1 and 3.4.
Input: one document per row (--dataset builtin, a file or folder, or a Hub id), which is split into sentences. Nothing
has to be trained for the tokenizer; vocabulary.txt, which the run leaves beside the model, has the words that are
predicted. neighbours.json shows what the context does to the words of --neighbours.
"""

from dataclasses import dataclass, field
from pathlib import Path

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    num_words: int = field(default=800_000, metadata={"help": "words that are predicted, at most", "min": 4})
    max_words: int = field(default=60, metadata={"help": "of a row; longer sentences are split", "min": 3})
    words_per_batch: int | None = field(
        default=None,
        metadata={"help": "sentences of like length make batches of about so many words; none is any rows", "min": 1},
    )
    neighbours: list[str] = field(
        default_factory=list, metadata={"help": "words whose nearest occurrences are shown: red lamp, or red,lamp"}
    )


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForPreTraining, set_seed

    from hftoolkit.data import bilm
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.errors import DataError
    from hftoolkit.evaluation.bilm import bilm_perplexities, counted_baselines
    from hftoolkit.evaluation.contextual_neighbours import require_occurrences, write_neighbours
    from hftoolkit.evaluation.nearest_words import asked_words
    from hftoolkit.loading import load_model, load_tokenizer, require_model_type
    from hftoolkit.run import run_training
    from hftoolkit.tokenization.character_ids import character_tokenizer, words_of
    from hftoolkit.training.token_loss import TokenLossTrainer

    # 1. Tokenizer: bytes, and what stands between spaces is a word.
    if data_args.streaming:
        raise DataError("streaming is set, but the words that are predicted have to be counted first: leave it out")
    require_model_type(model_args, "hft_elmo")
    is_new = model_args.tokenizer is None and model_args.model_name_or_path is None
    tokenizer = character_tokenizer() if is_new else load_tokenizer(model_args)
    start = model_args.model_name_or_path
    known = None if start is None else bilm.vocabulary_of(start, model_args.revision)

    # 2. Data: sentences, the words to predict, and rows with each word's two neighbours.
    documents = load_documents(data_args)
    parts = {split: documents[split] for split in ("train", "validation") if split in documents}
    sentences = {
        split: bilm.split_words(part, lambda text: words_of(tokenizer, text)) for split, part in parts.items()
    }
    vocabulary = known or bilm.frequent_words(sentences["train"], task_args.num_words)
    shown = asked_words(task_args.neighbours)
    require_occurrences(shown, sentences.get("validation"))
    special = {"<S>": tokenizer.bos_token_id, "</S>": tokenizer.eos_token_id}
    rows = {split: bilm.bilm_rows(part, vocabulary, special, task_args.max_words) for split, part in sentences.items()}
    summary = {split: bilm.describe_rows(sentences[split], part, vocabulary) for split, part in rows.items()}

    # 3. Model.
    set_seed(training_args.seed)
    model = load_model(AutoModelForPreTraining, model_args, tokenizer, num_words=len(vocabulary))
    if (size := model.config.num_words) != len(vocabulary):
        raise DataError(
            f"the model predicts {size} words, not {len(vocabulary)}: its vocabulary.txt must lie beside it"
        )

    # 4. Train, evaluate, save.
    train, size = rows["train"].remove_columns("words"), summary["train"]["words"] / summary["train"]["rows"]
    if task_args.words_per_batch is not None:
        train, size = bilm.WordBatches(train, task_args.words_per_batch, training_args.seed), task_args.words_per_batch
    trainer = TokenLossTrainer(
        model=model,
        args=training_args,
        data_collator=bilm.BilmCollator(tokenizer.pad_token_id),
        train_dataset=train,
        eval_dataset=rows["validation"].remove_columns("words") if "validation" in rows else None,
        processing_class=tokenizer,
    )

    def finish(trainer):
        """Perplexity of each direction, n-gram models on the same words, and words in their contexts."""
        folder, is_main = Path(training_args.output_dir), trainer.is_world_process_zero()
        if is_main:
            (folder / "vocabulary.txt").write_text("\n".join(vocabulary), encoding="utf-8")
        if "validation" not in rows:
            return {}
        held_out, batch_size = trainer.eval_dataset, training_args.per_device_eval_batch_size
        found = bilm_perplexities(trainer.model, held_out, trainer.data_collator, batch_size)
        if shown and is_main:
            write_neighbours(folder / "neighbours.json", trainer.model, tokenizer, sentences["validation"], shown)
        return found | {"baselines": counted_baselines(rows["train"], rows["validation"], len(vocabulary))}

    rows_per_step = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    return run_training(
        trainer,
        card="elmo",
        arguments=(model_args, data_args, task_args),
        data_summary=source_facts(data_args, documents) | summary,
        extra_metrics=finish,
        tokens_per_step=round(rows_per_step * size),
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
