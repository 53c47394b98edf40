"""Tasks of the microworld: every label is checked against the state replayed from the text, or an independent rule."""

import inspect
import re
from collections import Counter
from itertools import islice, repeat

import pytest

from hftoolkit.data import microworld
from hftoolkit.data.microworld import LEXICON, iterate_stories, judge_answer, retell, translate
from hftoolkit.data.microworld.examples import collect
from hftoolkit.data.microworld.facts import facts_of, open_facts_of
from hftoolkit.data.microworld.morphology import adverb, quality
from hftoolkit.data.microworld.translation import dictionary

TASKS = {
    microworld.acceptability_pairs: ("sentence_good", "UID"),
    microworld.acceptability_examples: ("sentence", "label"),
    microworld.sentiment_examples: ("sentence", "label"),
    microworld.topic_examples: ("text", "label"),
    microworld.paraphrase_examples: ("sentence1", "label"),
    microworld.entailment_examples: ("premise", "label"),
    microworld.question_examples: ("context", None),
    microworld.tagging_examples: ("tokens", None),
    microworld.summary_examples: ("document", None),
    microworld.translation_examples: ("translation", None),
    microworld.question_prompts: ("prompt", "kind"),
    microworld.preference_examples: ("prompt", None),
    microworld.instruction_examples: ("input", "kind"),
    microworld.text_to_text_examples: ("inputs", "task"),
}
every_task = pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)


@every_task
def test_same_seed_same_examples(make):
    examples = make(22, seed=1)
    assert len(examples) == 22
    assert examples == make(22, seed=1) != make(22, seed=2)
    assert make(0) == []


@every_task
def test_no_text_is_in_two_splits(make):
    key = TASKS[make][0]
    texts = [{str(example[key]) for example in make(33, split=split)} for split in ("train", "validation")]
    assert all(len(part) > 30 for part in texts)
    assert not texts[0] & texts[1]


@every_task
def test_classes_are_balanced(make):
    label = TASKS[make][1]
    if label is not None:
        counts = Counter(example[label] for example in make(44))
        assert max(counts.values()) - min(counts.values()) <= 6  # the quota is per construction and class


@every_task
@pytest.mark.parametrize("arguments", [(-1, 0, "train"), (5, -1, "train"), (5, 0, "dev"), (1.5, 0, "train")])
def test_wrong_arguments_are_refused(make, arguments):
    with pytest.raises(ValueError, match="must be"):
        make(*arguments)


@every_task
def test_docstring_shows_the_fields(make):
    assert "Example" in make.__doc__
    for field in make(1)[0]:
        assert f'"{field}"' in make.__doc__


def test_collect_says_when_there_are_no_more():
    found = []
    for split in microworld.SPLITS:  # one text belongs to one split
        with pytest.raises(ValueError, match="different examples found, 2 were asked for") as error:
            collect(repeat(("Anna slept.", None, {})), 2, 0, split)
        found.append(int(str(error.value).split()[1]))
    assert sorted(found) == [0, 0, 1]


def test_bad_sentences_are_never_written():
    written = {sentence for story in islice(iterate_stories(5), 300) for sentence in story.sentences}
    pairs = microworld.acceptability_pairs(110)
    assert len({pair["UID"] for pair in pairs}) == 11
    for pair in pairs:
        assert pair["sentence_good"] != pair["sentence_bad"] and pair["sentence_bad"] not in written


def test_sentiment_follows_from_the_words():
    """An independent rule: the mood's own colour, turned by not, lost and overcame."""
    forms = {}
    for label, moods in ((0, LEXICON.sad_moods), (1, LEXICON.glad_moods)):
        forms |= {form: label for mood in moods for form in (mood, adverb(mood), quality(mood))}
    turned = 0
    for example in microworld.sentiment_examples(200):
        words = re.findall(r"\w+", example["sentence"])
        label = next(forms[word] for word in words if word in forms)
        is_turned = not {"not", "lost", "overcame"}.isdisjoint(words)
        turned += is_turned
        assert example["label"] == (label ^ is_turned), example
    assert turned > 50


def test_topics_do_not_name_themselves():
    for example in microworld.topic_examples(50):
        story_words = set(re.findall(r"\w+", example["text"]))
        assert example["label_text"] not in story_words
        topic = LEXICON.topics[example["label"]]
        assert story_words & {place.word for place in topic.places}


def test_paraphrases_have_the_same_roles():
    """Bring both sentences into one form, and compare: an independent reading of the tellings."""

    def roles(sentence):
        sentence = sentence[0].lower() + sentence[1:-1]
        for pattern, kind in (
            (r"(?P<t>the \w+) (?:was|were) larger than (?P<u>the \w+)", "larger"),
            (r"(?P<u>the \w+) (?:was|were) smaller than (?P<t>the \w+)", "larger"),
            (r"(?P<a>\w+) gave (?P<t>the \w+) a coat of (?P<v>\w+) paint", "paint"),
            (r"(?P<a>\w+) painted (?P<t>the \w+) (?P<v>\w+)", "paint"),
            (r"(?P<t>the \w+) (?:was|were) painted (?P<v>\w+) by (?P<a>\w+)", "paint"),
            (r"(?P<a>\w+) gave (?P<t>the \w+) to (?P<b>\w+)", "give"),
            (r"(?P<a>\w+) gave (?P<b>\w+) (?P<t>the \w+)", "give"),
            (r"(?P<b>\w+) received (?P<t>the \w+) from (?P<a>\w+)", "give"),
            (r"(?P<t>the \w+) (?:was|were) given to (?P<b>\w+) by (?P<a>\w+)", "give"),
            (r"(?P<a>\w+) stole (?P<t>the \w+) from (?P<b>\w+)", "steal"),
            (r"(?P<b>\w+) lost (?P<t>the \w+) to (?P<a>\w+)", "steal"),
            (r"(?P<t>the \w+) (?:was|were) stolen from (?P<b>\w+) by (?P<a>\w+)", "steal"),
            (r"(?P<a>\w+) carried (?P<t>the \w+) to (?P<v>the \w+)", "carry"),
            (r"(?P<t>the \w+) (?:was|were) carried to (?P<v>the \w+) by (?P<a>\w+)", "carry"),
            (r"(?P<a>\w+) went to (?P<v>the \w+) and took (?P<t>the \w+) along", "carry"),
            (r"it was (?P<a>\w+) who took (?P<t>the \w+)", "take"),
            (r"(?P<t>the \w+) (?:was|were) taken by (?P<a>\w+)", "take"),
            (r"(?P<a>\w+) took (?P<t>the \w+)", "take"),
        ):
            match = re.fullmatch(pattern, sentence)
            if match:
                return kind, {role: word.lower() for role, word in match.groupdict().items()}
        raise AssertionError(sentence)

    for example in microworld.paraphrase_examples(120):
        assert (roles(example["sentence1"]) == roles(example["sentence2"])) == example["label"], example


def test_entailment_labels_agree_with_the_replayed_state():
    for example in microworld.entailment_examples(60):
        world = retell(example["premise"], complete=False).world
        true = {fact.state(fact.answer) for fact in facts_of(world)}
        false = {fact.state(answer) for fact in facts_of(world) for answer in fact.alternatives}
        assert not true & false
        label = 0 if example["hypothesis"] in true else 2 if example["hypothesis"] in false else 1
        assert example["label"] == label, example
    with pytest.raises(ValueError, match="max_sentences"):
        microworld.entailment_examples(1, max_sentences=2)


def test_answers_stand_at_their_offsets_and_are_true():
    aspects = Counter()
    for example in microworld.question_examples(48, unanswerable=True):
        world = retell(example["context"], complete=False).world
        texts, starts = example["answers"]["text"], example["answers"]["answer_start"]
        if not texts:
            assert starts == [] and example["question"] in {fact.question for fact in open_facts_of(world)}
            aspects["none"] += 1
            continue
        fact = next(fact for fact in facts_of(world) if fact.question == example["question"])
        assert example["context"][starts[0] : starts[0] + len(texts[0])] == texts[0]
        assert texts[0].lower() == fact.span.lower() and fact.span in fact.state(fact.answer).replace("The", "the")
        aspects[fact.aspect] += 1
    assert len(aspects) == 9
    with pytest.raises(ValueError, match="max_sentences"):
        microworld.question_examples(1, max_sentences=3)


def test_tags_are_well_formed_and_complete():
    kinds = Counter()
    for example in microworld.tagging_examples(300):
        tokens, tags = example["tokens"], example["tags"]
        assert len(tokens) == len(tags)
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert tag[:2] != "I-" or before[2:] == tag[2:]
        for token, tag in zip(tokens[1:], tags[1:], strict=True):
            assert not token.istitle() or tag == "B-PER" or tokens[tokens.index(token) - 1] == '"'
        kinds.update(tags)
    assert set(kinds) == {"O", "B-PER", "B-LOC", "B-OBJ", "I-OBJ"}


def test_summaries_agree_with_the_replayed_state():
    for example in microworld.summary_examples(20):
        world = retell(example["document"], complete=False).world
        sentences = example["summary"].removesuffix(".").split(". ")
        assert len(sentences) == len(world.people)
        for person, sentence in zip(world.people, sentences, strict=True):
            assert sentence.startswith(f"{person.word} is {person.place.where} and has ")
            held = {thing.the for thing in world.things if thing.holder is person}
            assert set(re.findall(r"the \w+", sentence.partition(" and has ")[2])) == held


def test_translations_differ_where_the_meaning_differs():
    """Tamo tells neither gender nor the number in was and were; all else is kept apart."""
    sentences = {sentence for story in islice(iterate_stories(2), 250) for sentence in story.sentences}

    def meaning(sentence):
        for one, other in (("were", "was"), ("are", "is"), ("she", "he"), ("her", "him"), ("his", "him"), ("an", "a")):
            sentence = re.sub(rf"\b{one}\b", other, sentence, flags=re.IGNORECASE)
        return sentence.replace("herself", "himself").lower().replace("have", "has")

    meanings = {}
    for sentence in sorted(sentences):
        meanings.setdefault(translate(sentence).lower(), set()).add(meaning(sentence))
    assert all(len(group) == 1 for group in meanings.values()), [g for g in meanings.values() if len(g) > 1][:5]
    assert len(meanings) > 1000


def test_dictionary_gives_every_lemma_its_own_word():
    roots = {}
    for word, (_, root, _) in dictionary().items():
        roots.setdefault(root, []).append(word)
    assert len(roots) > 440 and max(map(len, roots.values())) <= 3  # he, she; him, her, his; was, were


def test_translation_moves_the_verb_and_keeps_names():
    assert translate("Anna took the lamp.") == re.search(r'-> "(.*)"', translate.__doc__)[1]
    with pytest.raises(ValueError, match="no word for 'slept'"):
        translate("Anna slept.")


def test_instructions_have_the_right_output():
    examples = microworld.instruction_examples(60)
    for example in examples:
        given, output = example["input"], example["output"]
        match example["kind"]:
            case "answer":
                facts = facts_of(retell(given, complete=False).world)
                assert output in {f.state(f.answer) for f in facts if f.question == example["instruction"]}
            case "translate":
                assert output == translate(given)
            case "people":
                assert output.split(" and ") == [person.word for person in retell(given, complete=False).world.people]
            case "count":
                number = example["instruction"].split()[3]
                assert number in output.lower() and given.split()[-2:] == output.split()[-2:]
                assert translate(output)  # all words exist
            case "correct":
                assert given != output
    assert {example["kind"] for example in examples} >= {"summarise", "correct", "count"}


def test_preferences_are_those_of_the_judge():
    kinds = Counter()
    for example in microworld.preference_examples(48):
        assert judge_answer(example["prompt"], example["chosen"]) == example["chosen_score"]
        assert judge_answer(example["prompt"], example["rejected"]) == example["rejected_score"]
        assert example["chosen_score"] > example["rejected_score"]
        kinds[example["chosen_score"], example["rejected_score"]] += 1
    assert kinds == {(1.0, 0.0): 16, (1.0, -1.0): 16, (0.0, -1.0): 16}


def test_judge():
    story = "It was a cold winter morning in the house. Anna, a young cook, was in the hall. Anna went to the cellar."
    prompt = f"{story}\nQuestion: Where is Anna?\nAnswer:"
    assert judge_answer(prompt, " Anna is in the cellar.\n") == 1.0
    assert judge_answer(prompt, "Anna is in the hall.") == 0.0
    for malformed in ("", "Anna", "Anna is in the cellar", "Anna is on the cellar.", "Anna is in the cellar. Anna"):
        assert judge_answer(prompt, malformed) == -1.0
    for wrong, message in (
        (story, "not a prompt"),
        (prompt.replace("Anna?", "Tom?"), "does not answer"),
        (prompt.replace("went to", "flew to"), "sentence 3"),
    ):
        with pytest.raises(ValueError, match=message):
            judge_answer(wrong, "Anna is in the cellar.")


def test_prompts_are_answered_truly():
    for example in microworld.question_prompts(24):
        assert judge_answer(example["prompt"], example["completion"]) == 1.0


def test_text_to_text_takes_only_known_tasks():
    rows = microworld.text_to_text_examples(20, tasks=("sentiment", "summary"))
    assert Counter(row["task"] for row in rows) == {"sentiment": 10, "summary": 10}
    assert all(row["targets"] in ("negative", "positive") for row in rows if row["task"] == "sentiment")
    with pytest.raises(ValueError, match="tasks must be some of"):
        microworld.text_to_text_examples(2, tasks=("sentimnet",))


def test_public_functions_are_documented():
    for name in microworld.__all__:
        value = getattr(microworld, name)
        assert not inspect.isfunction(value) or value.__doc__
