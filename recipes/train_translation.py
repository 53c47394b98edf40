"""Train an encoder-decoder to translate: joint BPE, batches by tokens, averaged checkpoints, BLEU by sacrebleu.

    python recipes/train_translation.py --config transformer/tiny --output_dir runs/translation
    python recipes/train_translation.py --config transformer/multi30k --dataset DATA --output_dir runs/en-de
    python recipes/train_translation.py --config seq2seq/tiny --output_dir runs/recurrent-translation

Papers: Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, Sections 5 and 6.1; of the
recurrent encoder-decoder (architecture seq2seq) Bahdanau et al. 2015 and Luong et al. 2015.
Input: --dataset builtin (English to the microworld's Tamo), a folder with train.en, train.de, val.en, ..., a file of
rows with a column per language, or a Hub id. Beside the model, the run leaves translations-SPLIT.txt and alignments.png.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import EmbeddingArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments(EmbeddingArguments):
    source_language: str = field(default="en", metadata={"help": "as files or columns are named", "name": True})
    target_language: str = field(default="tamo", metadata={"help": "as files or columns are named", "name": True})
    max_length: int = field(default=128, metadata={"help": "tokens of a sentence; longer ones are left out", "min": 2})
    tokens_per_batch: int = field(default=4096, metadata={"help": "of the sources, and of the targets", "min": 2})
    skip_empty: bool = field(default=False, metadata={"help": "leave out pairs with a blank side"})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "share of the pairs held out without such data", "min": 0, "below": 1}
    )
    optimizer: str = field(default="adamw", metadata={"help": "muon: hidden matrices", "choices": ("adamw", "muon")})
    adamw_learning_rate: float | None = field(
        default=None, metadata={"help": "muon: rate of embeddings, biases, gains; none is learning_rate", "above": 0}
    )
    average_checkpoints: int = field(default=1, metadata={"help": "mean of the last checkpoints' weights", "min": 1})
    num_beams: int = field(default=4, metadata={"help": "of the final translations; 1 is greedy", "min": 1})
    length_penalty: float = field(default=0.6, metadata={"help": "of beam search: score / length ** penalty"})


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForSeq2SeqLM, set_seed

    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.parallel import load_parallel
    from hftoolkit.data.translation_rows import TokenBatches, TranslationCollator, describe_rows, encode_pairs
    from hftoolkit.evaluation.translation import evaluate_translations, prepare_to_translate, require_direction
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import TIMINGS, run_training
    from hftoolkit.tokenization import end_texts
    from hftoolkit.training.averaging import AverageCheckpoints
    from hftoolkit.training.initial_embeddings import InitialEmbeddings
    from hftoolkit.training.optimizers import make_optimizer
    from hftoolkit.training.token_loss import TokenLossTrainer

    # 1. Data, and a tokenizer for both languages.
    languages = task_args.source_language, task_args.target_language
    require_direction(model_args.model_name_or_path, languages, model_args.revision)
    options = {"skip_empty": task_args.skip_empty, "validation_fraction": task_args.validation_fraction}
    pairs, empty = load_parallel(data_args, languages, **options)
    texts = (text for row in pairs["train"] for text in (row["source"], row["target"]))
    tokenizer = end_texts(load_tokenizer(model_args, texts, task_args.max_length))

    # 2. Rows: what is too long is left out of the training; batches of pairs of like length.
    options = {"max_length": task_args.max_length, "num_workers": data_args.preprocessing_num_workers}
    used = [split for split in ("train", "validation") if split in pairs]
    rows = {split: encode_pairs(pairs[split], tokenizer, drop_long=split == "train", **options) for split in used}
    train = TokenBatches(rows["train"], task_args.tokens_per_batch, training_args.seed)

    # 3. Model.
    vectors = InitialEmbeddings(task_args.embeddings, tokenizer)
    set_seed(training_args.seed)
    start = {"decoder_start_token_id": tokenizer.pad_token_id} | vectors.config_fields  # as T5 and Marian
    if model_args.model_name_or_path is not None:  # a new model reads any length; a loaded one may have a limit
        start["max_position_embeddings"] = task_args.max_length
    model = load_model(AutoModelForSeq2SeqLM, model_args, tokenizer, **start)
    vectors.given_to(model, task_args.freeze_embeddings)
    prepare_to_translate(model, languages, task_args.max_length)

    # 4. Train, evaluate, save.
    trainer = TokenLossTrainer(
        model=model,
        args=training_args,
        data_collator=TranslationCollator(tokenizer),
        train_dataset=train,
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        optimizers=(make_optimizer(task_args.optimizer, model, training_args, task_args.adamw_learning_rate), None),
    )
    averaging = AverageCheckpoints(trainer, task_args.average_checkpoints)
    trainer.add_callback(averaging)

    def finish(trainer):
        """Translate the validation and test data with the final model."""
        found = {}
        if averaging.averaged and "validation" in rows:  # what was reported at the last step is of its weights alone
            found = {name: value for name, value in trainer.evaluate().items() if not name.endswith(TIMINGS)}
        search = {"num_beams": task_args.num_beams}
        search |= {"length_penalty": task_args.length_penalty} if task_args.num_beams > 1 else {}
        scored = {split: part for split, part in pairs.items() if split != "train"}
        return found | evaluate_translations(trainer, scored, task_args.max_length, **search)

    summary = {"name": data_args.dataset, "fingerprint": fingerprint(pairs["train"])}
    summary |= {split: describe_rows(rows[split], pairs[split], empty.get(split, 0)) for split in used}
    tests = [split for split in pairs if split not in used and empty[split]]
    summary |= {split: {"pairs": len(pairs[split]), "empty": empty[split]} for split in tests} | vectors.facts
    arguments = (model_args, data_args, task_args)
    tokens = round(summary["train"]["target_tokens"] / len(train))
    tokens *= training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    card = "seq2seq" if model.config.model_type == "hft_seq2seq" else "transformer"
    return run_training(
        trainer, card=card, arguments=arguments, data_summary=summary, extra_metrics=finish, tokens_per_step=tokens
    )


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, TaskArguments, "transformers.TrainingArguments")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
