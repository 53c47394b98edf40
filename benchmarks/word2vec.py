"""Skip-gram and CBOW with negative sampling, against gensim: words per CPU second, and what the vectors know.

    python benchmarks/word2vec.py --corpus text8.txt --similarity EN-WS-353-ALL.txt EN-SIMLEX-999.txt --analogies questions-words.txt
    python benchmarks/word2vec.py --quick

One thread, CPU seconds, both sides in turns in one run, seed after seed: 100 numbers, windows of 5, 5 negatives, words that
occur 5 times, subsampling at 1e-3, 5 epochs. A word counts each time it is read, whether it stays or not. Training alone is
timed: counting the vocabulary and, on our side, numbering the text stand apart. Without --corpus the text is the built-in
one. gensim is not needed by anything else: pip install gensim.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments

from hftoolkit.data.microworld import make_documents, word_categories
from hftoolkit.data.skipgram import WindowCollator, WordRows
from hftoolkit.data.training_rows import phases_of
from hftoolkit.evaluation.nearest_words import WordVectors
from hftoolkit.evaluation.word_report import WordTests
from hftoolkit.models.modeling_word2vec import HftWord2VecConfig, HftWord2VecForMaskedLM
from hftoolkit.training.word_trainer import RATES, WordVectorTrainer

SIZE, WINDOW, NEGATIVES, MIN_COUNT, SUBSAMPLING, EPOCHS = 100, 5, 5, 5, 1e-3, 5
SENTENCE = 10_000  # words; gensim cuts longer ones


class Corpus:
    """Words and their numbers; stands in for a store on the disk."""

    def __init__(self, words):
        self.words = words
        names, numbers, counts = np.unique(np.array(words), return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] >= MIN_COUNT]
        place = np.zeros(len(names), dtype=np.int64)
        place[order] = np.arange(1, len(order) + 1)
        self.tokens = place[numbers].astype(np.int32)
        self.vocabulary, self.counts = names[order].tolist(), np.append(0, counts[order])
        self.sentence_offsets = np.append(np.arange(0, len(words), SENTENCE), len(words))


def train_ours(corpus, objective, seed, folder):
    """(CPU seconds, WordVectors) of the Trainer that the recipe uses."""
    torch.manual_seed(seed)
    sizes = dict(vocab_size=len(corpus.counts), hidden_size=SIZE, window_size=WINDOW, objective=objective)
    args = TrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=4, learning_rate=RATES[objective], seed=seed,
        use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    options = dict(window_size=WINDOW, num_negatives=NEGATIVES, subsampling=SUBSAMPLING, seed=seed)
    collator = WindowCollator(corpus.counts, **options)
    rows = phases_of([WordRows(corpus, 10_000)], args, 0)
    trainer = WordVectorTrainer(
        HftWord2VecForMaskedLM(HftWord2VecConfig(**sizes)), args, collator, rows, update_words=256
    )
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    return seconds, WordVectors(corpus.vocabulary, trainer.model.model.embed_tokens.weight.detach()[1:].numpy())


def train_gensim(corpus, objective, seed):
    """(CPU seconds, WordVectors)."""
    from gensim.models.word2vec import Word2Vec

    pieces = range(0, len(corpus.words), SENTENCE)
    sentences = [corpus.words[begin : begin + SENTENCE] for begin in pieces]
    model = Word2Vec(
        vector_size=SIZE, window=WINDOW, negative=NEGATIVES, min_count=MIN_COUNT, sample=SUBSAMPLING, workers=1, seed=seed,
        epochs=EPOCHS, sg=objective == "skipgram", alpha=RATES[objective],
    )  # fmt: skip
    model.build_vocab(sentences)
    start = time.process_time()
    model.train(sentences, total_examples=model.corpus_count, epochs=EPOCHS)
    return time.process_time() - start, WordVectors(model.wv.index_to_key, model.wv.vectors)


def figures(corpus, tests, seconds, vectors):
    found = {name: value for name, value in tests.report(vectors).items() if isinstance(value, float)}
    return {"words_per_cpu_second": round(EPOCHS * len(corpus.words) / seconds)} | found


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="a text with white space between words")
    parser.add_argument("--similarity", nargs="*", default=[])
    parser.add_argument("--analogies")
    parser.add_argument("--objectives", nargs="*", default=["skipgram"], choices=("skipgram", "cbow"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--output_dir", default="runs/benchmark-word2vec")
    parser.add_argument("--quick", action="store_true", help="one seed on little text")
    return parser.parse_args()


def main():
    options = parse()
    try:
        import gensim
    except ImportError:
        gensim = None
        sys.stderr.write("gensim is not installed, so only our side runs: pip install gensim\n")
    torch.set_num_threads(1)
    if options.corpus:
        words = Path(options.corpus).read_text(encoding="utf-8").lower().split()
    else:
        number = 1000 if options.quick else 20_000
        words = " ".join(doc["text"] for doc in make_documents(number)).lower().replace(".", " .").split()
    corpus = Corpus(words)
    tests = WordTests(options.similarity, options.analogies, None if options.corpus else word_categories())
    print(f"{len(words):,} words, {len(corpus.vocabulary):,} in the vocabulary, {EPOCHS} epochs")
    result = {"gensim": gensim and gensim.__version__, "torch": torch.__version__}
    for objective in options.objectives:
        rows = {"ours": [], "gensim": []}
        for seed in options.seeds[:1] if options.quick else options.seeds:
            for side in ("gensim", "ours") if gensim else ("ours",):
                extra = (options.output_dir,) if side == "ours" else ()
                train = train_ours if side == "ours" else train_gensim
                rows[side].append(figures(corpus, tests, *train(corpus, objective, seed, *extra)))
                print(objective, side, "seed", seed, {k: round(v, 4) for k, v in rows[side][-1].items()}, flush=True)
        means = {
            side: {k: float(np.mean([f[k] for f in found])) for k in found[0]} for side, found in rows.items() if found
        }
        spread = {
            side: {k: float(np.std([f[k] for f in found])) for k in found[0]} for side, found in rows.items() if found
        }
        result[objective] = {"mean": means, "deviation": spread}
        if gensim:
            ratios = [
                a["words_per_cpu_second"] / b["words_per_cpu_second"] for a, b in zip(*rows.values(), strict=True)
            ]
            result[objective]["time_ratio"] = round(float(np.median(ratios)), 3)
            print(f"{objective}: ours is {result[objective]['time_ratio']} times as fast as gensim")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
