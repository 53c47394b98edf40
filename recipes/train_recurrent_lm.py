"""Train a language model from before the Transformer: recurrent (RNN, GRU, LSTM) or feed-forward.

    python recipes/train_recurrent_lm.py --config rnn/lm_tiny --output_dir runs/lstm-lm
    python recipes/train_recurrent_lm.py --config nnlm/lm_quickstart --output_dir runs/nnlm
    python recipes/train_recurrent_lm.py --config rnn/lm_wikitext2 --dataset DATA --output_dir runs/wikitext2

Papers: Bengio et al. 2003, https://www.jmlr.org/papers/v3/bengio03a.html; Mikolov et al. 2010; Zaremba et al. 2014,
https://arxiv.org/abs/1409.2329.
Input: one document per row (--dataset builtin, a file or folder, or a Hub id). The documents are laid end to end and read
in as many streams as a batch has rows, with the state carried on: truncated back-propagation through time. The loss is a
mean over tokens; hftoolkit/training/truncated_bptt.py says how the rates of papers that sum it over time translate.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import DataArguments, EmbeddingArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments(EmbeddingArguments):
    max_length: int = field(default=35, metadata={"help": "tokens through which the gradient goes back", "min": 1})
    min_count: int = field(default=1, metadata={"help": "a word seen less often in training is unknown", "min": 1})
    kneser_ney_order: int = field(default=5, metadata={"help": "n of the n-gram baseline", "min": 2})


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.language_modeling import tokenize_documents
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.errors import DataError
    from hftoolkit.evaluation.word_perplexity import counted_models, perplexities
    from hftoolkit.loading import load_model, load_tokenizer, require_model_type
    from hftoolkit.run import run_training
    from hftoolkit.training.initial_embeddings import InitialEmbeddings
    from hftoolkit.training.truncated_bptt import EVALUATED_AT_ONCE, ContiguousStreams, TruncatedBpttTrainer

    # 1. Tokenizer.
    if data_args.streaming:
        raise DataError("streaming is set, but the text has to be cut into streams of equal length: leave it out")
    require_model_type(model_args, "hft_rnn", "hft_nnlm")
    documents = load_documents(data_args)
    texts = (row["text"] for row in documents["train"])
    tokenizer = load_tokenizer(model_args, texts, min_count=task_args.min_count)

    # 2. Data: each batch goes on where the last one ended. One stream is evaluated, whole.
    parts = {split: documents[split] for split in ("train", "validation") if split in documents}
    rows, workers = training_args.per_device_train_batch_size, data_args.preprocessing_num_workers
    shapes = {"train": (rows, task_args.max_length), "validation": (1, EVALUATED_AT_ONCE)}
    streams = {
        split: ContiguousStreams(
            tokenize_documents(part, tokenizer, across=True, num_workers=workers),
            *shapes[split],
            tokenizer.eos_token_id,
        )
        for split, part in parts.items()
    }

    # 3. Model.
    vectors = InitialEmbeddings(task_args.embeddings, tokenizer)
    set_seed(training_args.seed)
    fields = {"bidirectional": False} if model_args.architecture == "rnn" else {}
    model = load_model(AutoModelForCausalLM, model_args, tokenizer, **fields, **vectors.config_fields)
    vectors.given_to(model, task_args.freeze_embeddings)

    # 4. Train, evaluate, save.
    trainer = TruncatedBpttTrainer(
        model=model,
        args=training_args,
        train_dataset=streams["train"],
        eval_dataset=streams.get("validation"),
        processing_class=tokenizer,
    )

    def compare(trainer):
        """Perplexity per word, and what counted models reach on the same tokens."""
        if "validation" not in streams:
            return {}
        held_out, order = streams["validation"], task_args.kneser_ney_order
        loss, tokens = trainer.evaluated or trainer.token_loss(held_out)  # resumed where nothing was left to evaluate
        found = counted_models(streams["train"], held_out, documents["validation"], len(tokenizer), order)
        mine = perplexities(loss * tokens, tokens, documents["validation"])
        return {"eval_word_perplexity": mine["eval_word_perplexity"], "baselines": found}

    return run_training(
        trainer,
        card="nnlm" if model.config.model_type == "hft_nnlm" else "recurrent_lm",
        arguments=(model_args, data_args, task_args),
        data_summary=source_facts(data_args, documents)
        | {split: part.summary() for split, part in streams.items()}
        | vectors.facts,
        extra_metrics=compare,
        tokens_per_step=rows * task_args.max_length * trainer.args.gradient_accumulation_steps,
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
