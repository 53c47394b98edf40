"""Train word vectors: skip-gram, CBOW, or counts with a singular value decomposition.

    python recipes/train_word2vec.py --config word2vec/tiny --output_dir runs/words
    python recipes/train_word2vec.py --config word2vec/text8 --dataset DATA --objective ppmi_svd --output_dir runs/counts

Papers: Mikolov et al. 2013, https://arxiv.org/abs/1301.3781 and https://arxiv.org/abs/1310.4546; Levy, Goldberg and Dagan
2015, https://aclanthology.org/Q15-1016. On corpora of a few million words counts are better than skip-gram.
Input: texts (--dataset builtin, a file or folder, or a Hub id). Output: a model whose AutoModel gives static vectors, and
vectors.txt in word2vec's format, which gensim reads and which `--embeddings` of other recipes takes.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    objective: Literal["skipgram", "cbow", "ppmi_svd"] = field(default="skipgram", metadata={"help": "the method"})
    window_size: int = field(default=5, metadata={"help": "words on each side that count as context", "min": 1})
    context: Literal["sentence", "line", "document"] = field(default="line", metadata={"help": "no window leaves it"})
    min_count: int = field(default=5, metadata={"help": "leave out rarer words", "min": 1})
    max_words: int | None = field(default=None, metadata={"help": "keep the most frequent", "min": 2})
    lowercase: bool = field(default=True, metadata={"help": "read all text in small letters"})
    subsampling: float = field(default=1e-3, metadata={"help": "thin out frequent words; 0: no", "min": 0, "max": 1})
    num_negatives: int = field(default=5, metadata={"help": "noise words per pair; 0: full softmax", "min": 0})
    shared_negatives: int = field(default=64, metadata={"help": "noise words that 16 words share", "min": 1})
    noise_exponent: float = field(default=0.75, metadata={"help": "noise is drawn by count to this power", "min": 0})
    dynamic_window: bool = field(default=True, metadata={"help": "draw each window from 1 to window_size"})
    words_per_row: int = field(default=10_000, metadata={"help": "words of a training row", "min": 32})
    update_words: int = field(default=256, metadata={"help": "words read between two updates", "min": 32})
    weighting: Literal["none", "linear", "harmonic"] = field(default="linear", metadata={"help": "counts by distance"})
    context_smoothing: float = field(default=0.75, metadata={"help": "power of context counts", "above": 0, "max": 1})
    shift: float = field(default=1.0, metadata={"help": "ppmi: its logarithm is taken off", "min": 1})
    svd_exponent: float = field(default=0.0, metadata={"help": "weight of the singular values", "min": 0, "max": 1})
    add_contexts: bool = field(default=False, metadata={"help": "ppmi_svd: word plus context vectors"})
    embeddings: str | None = field(default=None, metadata={"help": "vectors to start from", "must_exist": True})
    similarity: list[str] = field(default_factory=list, metadata={"help": "files of judged word pairs"})
    analogies: str | None = field(default=None, metadata={"help": "file as questions-words.txt", "must_exist": True})
    neighbours: list[str] = field(default_factory=list, metadata={"help": "show words near: red lamp, or red,lamp"})
    picture: Literal["pca", "tsne"] = field(default="pca", metadata={"help": "how words.png is drawn"})


def main(model_args, data_args, task_args, training_args):
    from transformers import AutoModelForMaskedLM, set_seed

    from hftoolkit.data.microworld import word_categories
    from hftoolkit.data.skipgram import WindowCollator, WordRows, require_words
    from hftoolkit.data.text import load_documents, source_facts
    from hftoolkit.data.token_store import tokenize_sentences
    from hftoolkit.data.training_rows import phases_of
    from hftoolkit.evaluation.word_report import WordTests
    from hftoolkit.evaluation.word_results import finish_words, words_to_show
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.count_vectors import CountVectorTrainer
    from hftoolkit.training.initial_embeddings import InitialEmbeddings
    from hftoolkit.training.word_trainer import RATES, WordVectorTrainer
    from hftoolkit.training.word_vocabulary import ContextParts, count_ids, counts_words, make_word_tokenizer

    # 1. Tokenizer: the words that are frequent enough.
    if task_args.objective == "ppmi_svd" and task_args.embeddings:
        raise DataError("ppmi_svd makes its vectors from counts alone and goes on from none: leave out embeddings")
    is_counted = counts_words(model_args.tokenizer, model_args.model_name_or_path)
    categories = word_categories() if data_args.dataset == "builtin" else {}
    tests = WordTests(task_args.similarity, task_args.analogies, categories)
    documents = load_documents(data_args)
    if is_counted:
        texts = (row["text"] for row in documents["train"])
        tokenizer = make_word_tokenizer(texts, task_args.min_count, task_args.max_words, task_args.lowercase)
    else:
        tokenizer = load_tokenizer(model_args)
    neighbours = words_to_show(task_args.neighbours, tokenizer)

    # 2. Data: the corpus as numbers on the disk, from which rows are read.
    parts, workers = ContextParts(documents["train"], task_args.context), data_args.preprocessing_num_workers
    store = tokenize_sentences(parts, tokenizer, splitter="none", num_workers=workers)
    counts = count_ids(store, len(tokenizer), tokenizer.all_special_ids, task_args.min_count)
    require_words(counts)
    rows = WordRows(store, task_args.words_per_row)

    # 3. Model.
    set_seed(training_args.seed)
    sizes = {"objective": task_args.objective, "window_size": task_args.window_size}
    model = load_model(AutoModelForMaskedLM, model_args, tokenizer, **sizes)
    model.config.update(sizes)
    coverage = InitialEmbeddings(task_args.embeddings, tokenizer).given_to(model).coverage
    if "learning_rate" not in training_args.given_arguments:
        training_args.learning_rate = RATES[task_args.objective]

    # 4. Train, evaluate, save.
    if task_args.objective == "ppmi_svd":
        names = ("subsampling", "weighting", "context_smoothing", "shift", "svd_exponent", "add_contexts")
        options = {name: getattr(task_args, name) for name in names}
        trainer = CountVectorTrainer(model, training_args, rows, counts=counts, processing_class=tokenizer, **options)
    else:
        names = ("window_size", "num_negatives", "shared_negatives", "dynamic_window", "subsampling", "noise_exponent")
        options = {name: getattr(task_args, name) for name in names}
        collator = WindowCollator(counts, seed=training_args.seed, **options)
        options = {"processing_class": tokenizer, "update_words": task_args.update_words}
        trainer = WordVectorTrainer(model, training_args, collator, phases_of([rows], training_args, 0), **options)
    return run_training(
        trainer,
        card="word2vec",
        arguments=(model_args, data_args, task_args),
        data_summary=source_facts(data_args, documents) | {"train": rows.summary() | {"words": len(tokenizer)}},
        extra_metrics=lambda _: finish_words(trainer, tests, neighbours, task_args.picture, coverage),
        tokens_per_step=training_args.train_batch_size * task_args.words_per_row,
    )


def parse(argv=None):
    return parse_arguments(ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments", argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
