"""Pretrain BERT: masked language modelling and next sentence prediction, or the first alone on packed rows (RoBERTa).

    python recipes/pretrain_bert.py --config bert/tiny --output_dir runs/bert
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain_bert.py --config bert/base --dataset DATA

Papers: Devlin et al. 2018, "BERT", https://arxiv.org/abs/1810.04805, Section 3.1 and Appendix A.2; Liu et al. 2019,
"RoBERTa", https://arxiv.org/abs/1907.11692, Section 4.2 (full sentences, --no_next_sentence).
Input: one document per row (--dataset builtin, a file or folder, or a Hub id). --tokenizer names a trained one, or a
kind (wordpiece, ...), which is then trained on the training documents.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors

SHARE_OF_LONG_ROWS = 0.1  # of the steps, the last ones: Devlin et al. 2018, Appendix A.2
EVALUATED_PROBABILITY = 0.15  # the paper's, whatever share a run masks to learn, so that losses can be compared


@dataclass
class TaskArguments:
    max_length: int = field(default=128, metadata={"help": "tokens of a row", "min": 8})
    long_length: int | None = field(default=None, metadata={"help": "tokens of a row in the last 10% of the steps"})
    next_sentence: bool = field(default=True, metadata={"help": "pairs of segments and the second objective"})
    masking: Literal["token", "whole_word", "span"] = field(default="token", metadata={"help": "what is masked"})
    masking_probability: float = field(
        default=0.15, metadata={"help": "share of the tokens masked in training", "above": 0, "below": 1}
    )
    short_sequence_probability: float = field(
        default=0.1, metadata={"help": "share of the pairs made shorter", "min": 0, "max": 1}
    )
    sentence_splitter: Literal["rules", "lines"] = field(default="rules", metadata={"help": "where a sentence ends"})
    optimizer: Literal["adamw", "muon"] = field(default="adamw", metadata={"help": "muon updates hidden matrices"})
    adamw_learning_rate: float | None = field(
        default=None,
        metadata={"help": "with muon: rate of embeddings, biases and gains; none is learning_rate", "above": 0},
    )
    max_spikes: int | None = field(default=None, metadata={"help": "stop at one spike of the gradient more", "min": 0})


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, set_seed

    from hftoolkit.data.mlm import MaskedLanguageModeling
    from hftoolkit.data.nsp import FullSentences, NextSentencePairs
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.data.token_store import tokenize_sentences
    from hftoolkit.data.training_rows import phases_of
    from hftoolkit.evaluation.bert_baselines import pretraining_baselines
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.bert_pretraining import BertPretrainingTrainer
    from hftoolkit.training.optimizers import make_optimizer

    # 1. Tokenizer.
    documents = load_documents(data_args)
    longest = max(task_args.max_length, task_args.long_length or 0)
    tokenizer = load_tokenizer(model_args, (row["text"] for row in documents["train"]), longest)

    # 2. Data: sentences tokenised once into a store on disk; pairs and masks are drawn anew at every pass.
    options = dict(splitter=task_args.sentence_splitter, num_workers=data_args.preprocessing_num_workers)
    used = [split for split in ("train", "validation") if split in documents]
    stores = {split: tokenize_sentences(documents[split], tokenizer, **options) for split in used}

    def rows(split, length):
        options = dict(seed=training_args.seed, redraw=split == "train")
        if not task_args.next_sentence:
            return FullSentences(stores[split], tokenizer, length, **options)
        options["short_sequence_probability"] = task_args.short_sequence_probability
        return NextSentencePairs(stores[split], tokenizer, length, **options)

    lengths = [task_args.max_length] + ([task_args.long_length] if task_args.long_length else [])
    train = phases_of([rows("train", length) for length in lengths], training_args, SHARE_OF_LONG_ROWS)
    validation = rows("validation", task_args.max_length) if "validation" in stores else None
    masks = dict(unit=task_args.masking, seed=training_args.seed)
    shares = task_args.masking_probability, EVALUATED_PROBABILITY
    collators = [MaskedLanguageModeling(tokenizer, probability=share, **masks) for share in shares]

    # 3. Model.
    set_seed(training_args.seed)
    head = AutoModelForPreTraining if task_args.next_sentence else AutoModelForMaskedLM
    model = load_model(head, model_args, tokenizer, max_position_embeddings=longest)

    # 4. Train, evaluate, save.
    trainer = BertPretrainingTrainer(
        model=model,
        args=training_args,
        data_collator=collators[0],
        eval_collator=collators[1],
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        optimizers=(make_optimizer(task_args.optimizer, model, training_args, task_args.adamw_learning_rate), None),
    )
    summary = {split: store.summary() for split, store in stores.items()}
    summary |= source_facts(data_args, documents) | {"passes": [round(passes, 2) for passes in train.passes()]}
    return run_training(
        trainer,
        card="bert",
        arguments=(model_args, data_args, task_args),
        data_summary=summary,
        extra_metrics=lambda trainer: {} if validation is None else pretraining_baselines(trainer, stores),
        max_spikes=task_args.max_spikes,
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
