"""Fine-tune a model to find answers in a text: SQuAD 1.1, SQuAD 2.0, or data in their form.

    python recipes/finetune_qa.py --config bert/qa_tiny --output_dir runs/qa
    python recipes/finetune_qa.py --config bert/qa --model_name_or_path google-bert/bert-base-uncased

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Sections 4.2 and 4.3.
Input: --dataset builtin, a SQuAD JSON file or a folder of train and dev files, or rajpurkar/squad, rajpurkar/squad_v2.
Beside the model, the run leaves predictions.json and nbest_predictions.json for the official scripts.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    max_length: int = field(default=384, metadata={"help": "tokens of question and window together", "min": 8})
    doc_stride: int = field(default=128, metadata={"help": "tokens that neighbouring windows share", "min": 0})
    max_question_length: int = field(default=64, metadata={"help": "tokens of a question that are read", "min": 1})
    n_best: int = field(default=20, metadata={"help": "starts and ends that are combined to answers", "min": 1})
    max_answer_length: int = field(default=30, metadata={"help": "tokens of an answer", "min": 1})
    null_threshold: float | None = field(
        default=None, metadata={"help": "no answer where the null odds exceed it; none is the best on validation data"}
    )
    misplaced_answers: Literal["drop", "stop"] = field(
        default="drop", metadata={"help": "what to do with questions whose answer is not where it should be"}
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of the articles held out without a dev file", "min": 0, "below": 1}
    )


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding, set_seed

    from hftoolkit.data import question_answering as qa
    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.question_windows import describe_windows, drop_lost_answers, make_windows
    from hftoolkit.evaluation.answer_scores import AnswerScorer, baseline_scores
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer
    from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer

    # 1. Data, and the tokenizer.
    options = {"validation_fraction": task_args.validation_fraction, "misplaced_answers": task_args.misplaced_answers}
    questions = qa.load_questions(data_args, **options)
    unanswerable = any("unanswerable" in part["state"] for part in questions.values())
    texts = (row[column] for row in questions["train"] for column in ("question", "context"))
    tokenizer = load_tokenizer(model_args, texts)
    tokenizer.padding_side = "right"  # the labels are positions counted from the left

    # 2. Windows of question and context; what was cut or lost is counted.
    parts = {"train": qa.trainable(questions["train"])}
    parts |= {"validation": questions["validation"]} if "validation" in questions else {}
    lengths = {name: getattr(task_args, name) for name in ("max_length", "doc_stride", "max_question_length")}
    workers = data_args.preprocessing_num_workers
    windows = {split: make_windows(part, tokenizer, num_workers=workers, **lengths) for split, part in parts.items()}
    counts = {
        split: qa.describe_questions(questions[split]) | describe_windows(part, windows[split])
        for split, part in parts.items()
    }

    # 3. Model.
    set_seed(training_args.seed)
    model = load_model(
        AutoModelForQuestionAnswering, model_args, tokenizer, max_position_embeddings=task_args.max_length
    )
    model = adapt(model, adaptation_args)

    # 4. Train, evaluate, save.
    scorer = None
    if "validation" in parts:
        limits = {name: getattr(task_args, name) for name in ("n_best", "max_answer_length")}
        limits |= {"unanswerable": unanswerable, "threshold": task_args.null_threshold}
        scorer = AnswerScorer(parts["validation"], windows["validation"], **limits)

    def finish(trainer):
        """Write the predictions of the final model, and say what is reached without one."""
        if scorer is None:
            return {}
        prediction = trainer.predict(windows["validation"])
        if trainer.is_world_process_zero():
            scorer.write(training_args.output_dir, prediction)
        return {"baselines": baseline_scores(parts["train"], parts["validation"], unanswerable)}

    trainer = OrderedEvaluationTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=drop_lost_answers(parts["train"], windows["train"]),
        eval_dataset=windows.get("validation"),
        processing_class=tokenizer,
        compute_metrics=scorer,
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
