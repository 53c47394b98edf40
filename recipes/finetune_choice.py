"""Fine-tune a model to choose among several answers: SWAG and its like.

    python recipes/finetune_choice.py --config bert/choice_tiny --output_dir runs/choice
    python recipes/finetune_choice.py --config bert/choice --model_name_or_path google-bert/bert-base-uncased

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 4.4.
Input: --dataset builtin, a file or folder with rows {"context", "choices", "label"} or as SWAG, HellaSwag, ARC,
OpenBookQA, PIQA and CODAH are distributed, or a Hub id. Beside the model, the run leaves predictions.json.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    max_length: int = field(default=128, metadata={"help": "tokens of context and choice together", "min": 5})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of the questions held out without a dev file", "min": 0, "below": 1}
    )


def main(model_args, data_args, adaptation_args, task_args, training_args):
    import json
    from pathlib import Path

    from transformers import AutoModelForMultipleChoice, set_seed

    from hftoolkit.data.choice_rows import ChoiceCollator, describe_rows, pair_choices
    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.multiple_choice import describe_choices, load_choices
    from hftoolkit.evaluation.choices import baseline_scores, best_choices
    from hftoolkit.evaluation.metrics import accuracy
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer
    from hftoolkit.training.choice_trainer import ChoiceTrainer

    # 1. Data, and the tokenizer.
    questions = load_choices(data_args, validation_fraction=task_args.validation_fraction)
    texts = (text for row in questions["train"] for text in (row["context"], *row["choices"]))
    tokenizer = load_tokenizer(model_args, texts)

    # 2. Each choice as a pair with the context; what was cut is counted.
    options = {"max_length": task_args.max_length, "num_workers": data_args.preprocessing_num_workers}
    parts = {split: part for split, part in questions.items() if split != "test"}
    rows = {split: pair_choices(part, tokenizer, **options) for split, part in parts.items()}
    counts = {split: describe_choices(part) | describe_rows(rows[split]) for split, part in parts.items()}

    # 3. Model.
    set_seed(training_args.seed)
    sizes = {"max_position_embeddings": task_args.max_length}
    model = adapt(load_model(AutoModelForMultipleChoice, model_args, tokenizer, **sizes), adaptation_args)

    # 4. Train, evaluate, save.
    def compute_metrics(prediction):
        return accuracy(best_choices(prediction.predictions, parts["validation"]), prediction.label_ids)

    def finish(trainer):
        """Write the choices of the final model, and say what is reached without one."""
        if "validation" not in parts:
            return {}
        chosen = best_choices(trainer.predict(rows["validation"]).predictions, parts["validation"])
        if trainer.is_world_process_zero():
            found = dict(zip(parts["validation"]["id"], chosen.tolist(), strict=True))
            Path(training_args.output_dir, "predictions.json").write_text(json.dumps(found, indent=2) + "\n")
        return {"baselines": baseline_scores(parts["train"], parts["validation"])}

    trainer = ChoiceTrainer(
        model=model,
        args=training_args,
        data_collator=ChoiceCollator(tokenizer),
        train_dataset=rows["train"],
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        optimizers=(layer_decay_optimizer(model, training_args, adaptation_args.layer_decay), None),
    )
    summary = {"name": data_args.dataset, "fingerprint": fingerprint(questions["train"])} | counts
    arguments = (model_args, data_args, adaptation_args, task_args)
    return run_training(trainer, card="bert", arguments=arguments, data_summary=summary, extra_metrics=finish)


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "transformers.TrainingArguments")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
