"""Pretrain T5: restore what noise took out of a row, by span corruption or any other objective of the paper's table.

    python recipes/pretrain_t5.py --config t5/tiny --output_dir runs/t5
    python recipes/pretrain_t5.py --config t5/tiny --objective ul2 --output_dir runs/ul2
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain_t5.py --config t5/base --dataset DATA

Papers: Raffel et al. 2020, "T5", https://arxiv.org/abs/1910.10683, Section 3.1; Lewis et al. 2020, "BART",
https://arxiv.org/abs/1910.13461; Tay et al. 2023, "UL2", https://arxiv.org/abs/2205.05131.
Input: one document per row (--dataset builtin, a file or folder, or a Hub id). --tokenizer names a trained one with
sentinels, or a kind (unigram, ...), which is then trained on the training documents.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.data.denoising import OBJECTIVES, objective_of
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    objective: str = field(default="random_spans", metadata={"help": "what is restored", "choices": tuple(OBJECTIVES)})
    noise_density: float | None = field(default=None, metadata={"help": "share of noise; none is the objective's own"})
    mean_span_length: float | None = field(default=None, metadata={"help": "tokens; none is the objective's own"})
    max_length: int = field(default=512, metadata={"help": "tokens of the inputs, which fill them", "min": 8})
    max_target_length: int | None = field(default=None, metadata={"help": "tokens of the targets at most", "min": 8})
    layout: Literal["across", "document"] = field(
        default="across", metadata={"help": "rows cut from documents laid end to end, or from one document each"}
    )
    decoder_only: bool = field(default=False, metadata={"help": "one stack that reads inputs as a prefix (prefix LM)"})
    optimizer: Literal["adamw", "muon", "adafactor", "adamw_rms"] = field(
        default="adamw", metadata={"help": "muon updates hidden matrices; adafactor is T5's, adamw_rms nanoT5's"}
    )
    adamw_learning_rate: float | None = field(
        default=None,
        metadata={"help": "with muon: rate of embeddings, biases and gains; none is learning_rate", "above": 0},
    )
    max_spikes: int | None = field(default=None, metadata={"help": "stop at one spike of the gradient more", "min": 0})

    def __post_init__(self):
        row, length = self.row_length(), self.mean_span_length
        if length is not None and row * self.denoising().noise["density"] < length:
            raise ValueError(
                f"mean_span_length: the noise of a row of {row} tokens is shorter than one span of {length}"
            )

    def denoising(self):
        return objective_of(self.objective, density=self.noise_density, mean_length=self.mean_span_length)

    def row_length(self):
        return self.denoising().row_length(self.max_length, self.max_target_length)


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

    from hftoolkit.data.denoising_collator import DecoderDenoising, Denoising
    from hftoolkit.data.denoising_rows import rows_of_documents
    from hftoolkit.data.denoising_tokenizer import prepare_tokenizer
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.data.training_rows import phases_of
    from hftoolkit.evaluation.denoising_baselines import denoising_baselines
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.tokenization import KINDS
    from hftoolkit.training.denoising import DenoisingTrainer
    from hftoolkit.training.optimizers import optimizer_and_schedule

    # 1. Tokenizer: with a sentinel for every span, and a name for every mode of UL2.
    documents = load_documents(data_args)
    objective, row_length = task_args.denoising(), task_args.row_length()
    tokenizer = load_tokenizer(model_args, (row["text"] for row in documents["train"]), task_args.max_length)
    prepare_tokenizer(tokenizer, objective, row_length, is_new=model_args.tokenizer in KINDS)

    # 2. Data: documents tokenised once into a store on disk, rows that leave nothing to pad; noise is drawn at every pass.
    options = dict(seed=training_args.seed, layout=task_args.layout, num_workers=data_args.preprocessing_num_workers)
    rows = rows_of_documents(documents, tokenizer, objective, row_length, **options)
    train = phases_of([rows["train"]], training_args, 0)
    make = DecoderDenoising if task_args.decoder_only else Denoising
    collator = make(tokenizer, objective, seed=training_args.seed, max_target_length=task_args.max_target_length)

    # 3. Model.
    set_seed(training_args.seed)
    head = AutoModelForCausalLM if task_args.decoder_only else AutoModelForSeq2SeqLM
    model = load_model(head, model_args, None if model_args.model_name_or_path else tokenizer)
    grow_embeddings(model, tokenizer)

    # 4. Train, evaluate, save.
    trainer = DenoisingTrainer(
        model=model,
        args=training_args,
        data_collator=collator,
        is_text=~collator.is_special,
        train_dataset=train,
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        optimizers=optimizer_and_schedule(task_args.optimizer, model, training_args, task_args.adamw_learning_rate),
    )
    summary = {split: part.summary() for split, part in rows.items()}
    summary |= source_facts(data_args, documents) | {"passes": [round(passes, 2) for passes in train.passes()]}
    rows_per_step = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
    return run_training(
        trainer,
        card="t5",
        arguments=(model_args, data_args, task_args),
        data_summary=summary,
        extra_metrics=lambda trainer: denoising_baselines(trainer, rows),
        max_spikes=task_args.max_spikes,
        tokens_per_step=round(rows_per_step * rows["train"].tokens_per_row),
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
