"""Pretrain GPT-1 or GPT-2: next-token prediction on packed documents.

    python recipes/pretrain_gpt.py --config gpt/tiny --output_dir runs/gpt
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain_gpt.py --config gpt/gpt2 --dataset DATA

Papers: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", Section 3.1 and 4.1;
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", Section 2.
Input: one document per row (--dataset builtin, a file or folder, or a Hub id). --tokenizer names a trained one, or a
kind (byte_bpe, ...), which is then trained on the training documents.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    max_length: int = field(default=256, metadata={"help": "tokens the model reads per row", "min": 2})
    packing: Literal["whole", "stream", "across"] = field(
        default="whole",
        metadata={
            "help": "whole documents; full rows cut from a stream; or that and attention across documents (GPT-2)"
        },
    )
    optimizer: Literal["adamw", "muon"] = field(default="adamw", metadata={"help": "muon updates hidden matrices"})
    adamw_learning_rate: float | None = field(
        default=None,
        metadata={"help": "with muon: rate of embeddings, biases and gains; none is learning_rate", "above": 0},
    )
    max_spikes: int | None = field(default=None, metadata={"help": "stop at one spike of the gradient more", "min": 0})


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.language_modeling import collate_packed, pack_documents, tokenize_documents
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.evaluation.ngram import ngram_baselines
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.optimizers import make_optimizer
    from hftoolkit.training.token_loss import TokenLossTrainer

    # 1. Tokenizer.
    documents = load_documents(data_args)
    tokenizer = load_tokenizer(model_args, (row["text"] for row in documents["train"]), task_args.max_length)

    # 2. Data: tokenised once, packed into rows without padding.
    across = task_args.packing == "across"
    tokens = {
        split: tokenize_documents(part, tokenizer, across=across, num_workers=data_args.preprocessing_num_workers)
        for split, part in documents.items()
    }
    length, packing = task_args.max_length, task_args.packing
    batch_size = training_args.per_device_train_batch_size if data_args.streaming else None
    train = pack_documents(tokens["train"], length, packing, len(tokenizer), streamed_batch_size=batch_size)
    validation = (
        pack_documents(tokens["validation"], length, packing, len(tokenizer)) if "validation" in tokens else None
    )

    # 3. Model.
    set_seed(training_args.seed)
    model = load_model(AutoModelForCausalLM, model_args, tokenizer, max_position_embeddings=length)

    # 4. Train, evaluate, save.
    trainer = TokenLossTrainer(
        model=model,
        args=training_args,
        data_collator=collate_packed,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        optimizers=(make_optimizer(task_args.optimizer, model, training_args, task_args.adamw_learning_rate), None),
    )

    def baselines(trainer):
        """What simpler models reach on the same tokens and, for built-in data, what no model can go below."""
        if validation is None:
            return {}
        results = ngram_baselines(train, validation, len(tokenizer))
        if "log_probability" in (documents["validation"].column_names or ()):
            nats = -sum(row["log_probability"] for row in documents["validation"])
            results["true_entropy"] = nats / validation.summary()["tokens"]
        return {"baselines": results}

    rows_per_step = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    return run_training(
        trainer,
        card="gpt",
        arguments=(model_args, data_args, task_args),
        data_summary=source_facts(data_args, documents)
        | {"train": train.summary(), "validation": None if validation is None else validation.summary()},
        extra_metrics=baselines,
        max_spikes=task_args.max_spikes,
        tokens_per_step=None if data_args.streaming else round(rows_per_step * train.tokens_per_row),
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
