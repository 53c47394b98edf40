"""What a run leaves beside its model of word vectors: vectors.txt, words.png, and figures."""

import logging

from hftoolkit.data.embedding_files import write_word2vec
from hftoolkit.evaluation.nearest_words import WordVectors, asked_words, number_among
from hftoolkit.evaluation.word_report import draw_words, neighbour_lines

logger = logging.getLogger(__name__)

VECTORS_FILE, PICTURE_FILE = "vectors.txt", "words.png"
SHOWN = 6  # words of the vocabulary whose neighbours are shown where nobody asks for any
DRAWN = 60  # most frequent words in a picture without words of its own


def word_vectors_of(model, tokenizer):
    """(words without special tokens, in the order of their ids, and their input vectors (N, D) float32)."""
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    words = [word for word, number in sorted(vocabulary.items(), key=lambda item: item[1]) if number not in special]
    matrix = model.get_input_embeddings().weight.detach().float().cpu()
    return words, matrix[[vocabulary[word] for word in words]].numpy()


def words_to_show(values, tokenizer):
    """The words of --neighbours, known to a tokenizer.

    Raises:
        DataError: one is not among its words; with the nearest spellings.
    """
    words, special = asked_words(values), set(tokenizer.all_special_ids)
    index = {word: number for word, number in tokenizer.get_vocab().items() if number not in special}
    for word in words:
        number_among(word, index)
    return words


def finish_words(trainer, tests, neighbours=(), method="pca", coverage=None, show=print):
    """Write vectors and picture, show neighbours, and return the figures with those of random vectors beside.

    Args:
        tests: a WordTests.
        neighbours: words whose nearest ones are shown; none: some of the vocabulary.
        method: of the picture.
        coverage: of the embeddings that the run began with, or None.
        show: called with each line.
    """
    words, matrix = word_vectors_of(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class)
    vectors, folder = WordVectors(words, matrix), trainer.args.output_dir
    write_word2vec(f"{folder}/{VECTORS_FILE}", words, matrix)
    asked = list(neighbours) or words[: len(words) // 2 : max(len(words) // (2 * SHOWN), 1)][:SHOWN]
    for line in neighbour_lines(vectors, asked):
        show(line)
    groups = tests.categories or {"words": list(neighbours) or words[:DRAWN]}
    try:
        draw_words(vectors, groups, f"{folder}/{PICTURE_FILE}", method=method)
    except Exception:
        logger.warning("%s could not be made; the run goes on without it", PICTURE_FILE, exc_info=True)
    found = tests.report(vectors)
    if coverage is not None:
        found["embeddings_coverage"] = coverage.share
    return found | {"baselines": tests.baselines(vectors)}
