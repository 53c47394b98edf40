"""Fine-tune a model to tag words: named entities, parts of speech.

    python recipes/finetune_tagging.py --config bert/tagging_tiny --output_dir runs/tagging
    python recipes/finetune_tagging.py --config bert/tagging --model_name_or_path google-bert/bert-base-cased
    python recipes/finetune_tagging.py --config rnn/tagging_tiny --output_dir runs/lstm-tagging

Papers: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 5.3; a recurrent network from scratch as Huang et
al. 2015, https://arxiv.org/abs/1508.01991, Section 2.3.
Input: --dataset builtin, CoNLL columns or JSON lines (a file, or a folder of train and dev files), or a Hub data set
with tokens and ner_tags or pos_tags. Beside the model, the run leaves predictions.conll: word, right tag, predicted.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import (
    AdaptationArguments,
    EmbeddingArguments,
    ExampleArguments,
    ModelArguments,
    parse_arguments,
)
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments(EmbeddingArguments):
    task: Literal["ner", "pos"] = field(
        default="ner", metadata={"help": "entities, scored by F1 of whole entities; or any tags, scored by accuracy"}
    )
    max_length: int = field(default=128, metadata={"help": "tokens of a row; longer sentences are split", "min": 3})
    word_column: int | None = field(default=None, metadata={"help": "of CoNLL files, from 0; none is the first"})
    tag_column: int | None = field(default=None, metadata={"help": "of CoNLL files, -1 is the last; none is the last"})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of the sentences held out without a dev file", "min": 0, "below": 1}
    )


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, set_seed

    from hftoolkit.cards import card_of
    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.tagging import describe_sentences, load_tagged
    from hftoolkit.data.word_labels import describe_rows, label_first_subwords, label_names
    from hftoolkit.evaluation.tags import TagScorer, baseline_scores, majority_tag
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer
    from hftoolkit.training.initial_embeddings import InitialEmbeddings
    from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer, most_likely

    # 1. Data, and the tokenizer.
    columns = {name: getattr(task_args, name) for name in ("validation_fraction", "word_column", "tag_column")}
    sentences = load_tagged(data_args, task=task_args.task, **columns)
    tokenizer = load_tokenizer(model_args, (" ".join(words) for words in sentences["train"]["tokens"]))
    tokenizer.padding_side = "right"  # words are found by their positions counted from the left

    # 2. Rows with a label at each word's first sub-word; what was split or has no label is counted.
    labels = label_names(sentences["train"], task_args.task)
    options = {"max_length": task_args.max_length, "num_workers": data_args.preprocessing_num_workers}
    parts = {split: part for split, part in sentences.items() if split != "test"}
    rows = {split: label_first_subwords(part, tokenizer, labels, **options) for split, part in parts.items()}
    counts = {
        split: describe_sentences(part) | describe_rows(part, rows[split], labels) for split, part in parts.items()
    }

    # 3. Model.
    vectors = InitialEmbeddings(task_args.embeddings, tokenizer)
    set_seed(training_args.seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    names |= {"num_labels": len(labels), "max_position_embeddings": task_args.max_length} | vectors.config_fields
    model = load_model(AutoModelForTokenClassification, model_args, tokenizer, **names)
    vectors.given_to(model, task_args.freeze_embeddings)
    model = adapt(model, adaptation_args)

    # 4. Train, evaluate, save.
    scorer = None
    if "validation" in parts:
        fallback = "O" if task_args.task == "ner" else majority_tag(parts["train"])
        scorer = TagScorer(parts["validation"], rows["validation"], labels, task_args.task, fallback)

    def finish(trainer):
        """Write the predictions of the final model, and say what is reached without one."""
        if scorer is None:
            return {}
        tags = scorer.tags(trainer.predict(rows["validation"]).predictions)
        if trainer.is_world_process_zero():
            scorer.write(f"{training_args.output_dir}/predictions.conll", tags)
        return {"baselines": baseline_scores(parts["train"], parts["validation"], task_args.task)}

    trainer = OrderedEvaluationTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        train_dataset=rows["train"],
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        compute_metrics=scorer,
        preprocess_logits_for_metrics=most_likely,
        optimizers=(layer_decay_optimizer(model, training_args, adaptation_args.layer_decay), None),
    )
    summary = {"name": data_args.dataset, "fingerprint": fingerprint(sentences["train"])} | counts | vectors.facts
    arguments = (model_args, data_args, adaptation_args, task_args)
    return run_training(trainer, card=card_of(model), arguments=arguments, data_summary=summary, extra_metrics=finish)


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "transformers.TrainingArguments")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
