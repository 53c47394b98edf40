"""The built-in microworld: documents with a state of the world behind them, and tasks that follow from it.

    It was a rainy autumn afternoon at the station. Amelia, a busy engineer, was in the carriage. A ticket lay in the
    tunnel. Peter the conductor waited in the carriage and felt peaceful. Amelia wanted the ticket, so she went to the
    tunnel. She took it. "Where is the ticket?" asked Peter. ...

A small probabilistic grammar tells what a simulated world does: people with names (a third of them coined from
syllables), roles, moods and possessions, things with colours and sizes, places, topics. The generator knows the exact
probability of every text, so a loss has an absolute target; n-grams stay far above it, because who holds what and who
is where must be remembered. Everything is made here, offline, from a seed: the same bytes on every Python.

documents.py   documents, their probability, the splits         stories.py     texts with events and state
narration.py, dialogue.py, actions.py, scene.py   the grammar   choices.py     one code path to write and to read
world.py       the state and what changes it                    facts.py       what can be asked and stated
words.py, lexicon.py, names.py, morphology.py   the words       *_tasks.py, translation.py, text_to_text.py   tasks
"""

from .documents import (
    CHECK_NATS,
    GENERATOR_VERSION,
    entropy_report,
    iterate_documents,
    make_documents,
    score_document,
)
from .instruction_tasks import instruction_examples, judge_answer, preference_examples, question_prompts
from .lexicon import LEXICON, word_categories
from .pair_tasks import entailment_examples, paraphrase_examples
from .question_tasks import question_examples, summary_examples, tagging_examples
from .sentence_tasks import acceptability_examples, acceptability_pairs, sentiment_examples, topic_examples
from .stories import SPLITS, Story, iterate_stories, retell, split_of
from .text_to_text import text_to_text_examples
from .translation import translate, translation_examples

__all__ = [
    "CHECK_NATS",
    "GENERATOR_VERSION",
    "LEXICON",
    "SPLITS",
    "Story",
    "acceptability_examples",
    "acceptability_pairs",
    "entailment_examples",
    "entropy_report",
    "instruction_examples",
    "iterate_documents",
    "iterate_stories",
    "judge_answer",
    "make_documents",
    "paraphrase_examples",
    "preference_examples",
    "question_examples",
    "question_prompts",
    "retell",
    "score_document",
    "sentiment_examples",
    "split_of",
    "summary_examples",
    "tagging_examples",
    "text_to_text_examples",
    "topic_examples",
    "translate",
    "translation_examples",
    "word_categories",
]
