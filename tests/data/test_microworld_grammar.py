"""The grammar against exhaustive enumeration: probabilities sum to one, and no text can be written in two ways."""

import math
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from hftoolkit.data.microworld.actions import ACTIONS
from hftoolkit.data.microworld.choices import Draw, Table, derivations, zipf
from hftoolkit.data.microworld.lexicon import LEXICON, build_topics
from hftoolkit.data.microworld.morphology import adverb, article, comparative, plural, quality
from hftoolkit.data.microworld.names import coin_name, name_person
from hftoolkit.data.microworld.narration import NARRATION
from hftoolkit.data.microworld.stories import (
    document_random,
    iterate_stories,
    retell,
    sentence_writers,
    tell,
    write_body,
)
from hftoolkit.data.microworld.world import World, is_reserved_colour, is_reserved_place

# one site with two places and two things, two possible names, two colours: small enough to write out every document
TINY = replace(
    LEXICON,
    topics=build_topics({"house": ("in the house", "in kitchen, in cellar", "cook", "lamp, apple")}),
    weathers=("cold",),
    seasons=("winter",),
    day_parts=("night",),
    female_names=("Anna",),
    male_names=("Tom",),
    coined_share=0.0,
    traits=Table(("old",)),
    colours=("red", "blue"),
    sizes=Table(("tiny", "huge")),
    glad_moods=("glad",),
    sad_moods=(),
    plural_share=0.0,
    lengths=Table((1, 2), (0.7, 0.3)),
    closings=("At last it was",),
    max_people=1,
    max_things=1,
    narration_weights={"find": 1.0, "describe": 2.0, "count": 1.0},
)
# few names and traits, but every construction: for all that can be said next in a given state
MIDDLE = replace(
    LEXICON,
    coined_share=0.0,
    female_names=("Anna", "Clara", "Ida", "Una"),
    male_names=("Tom", "Ben", "Hugo", "Leo"),
    traits=Table(("old",)),
)


@pytest.fixture(scope="module", params=["train", "test"])
def language(request):
    """Every document of TINY in one split, with its probability."""
    stories = derivations(lambda source: tell(source, request.param, TINY))
    return request.param, [(story.text, math.exp(logs)) for story, logs in stories]


def test_probabilities_of_all_documents_sum_to_one(language):
    _, documents = language
    assert len(documents) > 4_000
    assert math.fsum(probability for _, probability in documents) == pytest.approx(1, abs=1e-12)


def test_every_document_is_written_in_one_way_only(language):
    _, documents = language
    assert len({text for text, _ in documents}) == len(documents)


def test_relative_frequencies_match_probabilities(language):
    """Frequencies of texts without what is spread most widely (how the person is introduced, the hour)."""
    split, documents = language
    expected, drawn, count = Counter(), Counter(), 4000
    for text, probability in documents:
        expected[tuple(text.split(". ")[2:-1])] += probability
    for index in range(count):
        drawn[tuple(tell(Draw(document_random(7, split, index)), split, TINY).text.split(". ")[2:-1])] += 1
    assert set(drawn) <= set(expected)
    for text, probability in expected.items():
        error = math.sqrt(count * probability * (1 - probability))
        assert abs(drawn[text] - count * probability) <= 5 * error + 1


def test_scores_match_the_enumeration(language):
    _, documents = language
    for text, probability in documents[:: len(documents) // 40]:
        assert retell(text, lexicon=TINY).log_probability == pytest.approx(math.log(probability), abs=1e-9)


def stories_in_progress(num_stories, lexicon):
    """Worlds three or four sentences before the end of a story, when much has happened (seed 18: everything)."""
    for index, story in enumerate(islice(iterate_stories(18, "test", lexicon=lexicon), num_stories)):
        world, sentences = World(lexicon, True, len(story.sentences)), []
        writers = sentence_writers("test", sentences, len(story.sentences))
        source = Draw(document_random(18, "test", index))
        source.draw(lexicon.lengths)
        for write in islice(writers, len(story.sentences) - 4 + index % 2):
            sentence, event = write(world, source)
            world.apply(event)
            sentences.append(sentence)
        assert sentences == story.sentences[: len(sentences)]
        yield world


def test_in_any_state_all_next_sentences_differ_and_sum_to_one():
    kinds = set()
    for world in stories_in_progress(12, MIDDLE):
        total, texts = 0.0, set()
        for (text, event), logs in derivations(lambda source, world=world: write_body(world, source)):
            assert text not in texts, f"two ways to write {text!r}"
            texts.add(text)
            kinds.add(event.kind)
            total += math.exp(logs)
        assert total == pytest.approx(1, abs=1e-9)
    assert kinds == {*NARRATION, *ACTIONS, "answer"}


@pytest.mark.parametrize("female", [True, False])
def test_coined_names_differ_and_sum_to_one(female):
    names = Counter()
    for name, logs in derivations(lambda source: coin_name(LEXICON, source, female, "MTLRKSDNBJVGFHPZ")):
        assert name not in names
        names[name] = math.exp(logs)
    assert math.fsum(names.values()) == pytest.approx(1, abs=1e-9)


def test_no_common_name_can_be_coined():
    for name in LEXICON.female_names + LEXICON.male_names:
        readings = [
            coined
            for female in (True, False)
            for coined, _ in derivations(lambda source, female=female: coin_name(LEXICON, source, female, ""), name)
        ]
        assert name not in readings


def test_names_of_a_document_begin_with_different_letters():
    for index in range(200):
        source, taken = Draw(document_random(0, "train", index)), []
        for _ in range(4):
            taken.append(name_person(LEXICON, source, taken)[0])
        assert len({name[0] for name in taken}) == 4


def test_zipf_gives_the_first_options_more():
    assert [round(math.exp(logs), 3) for logs in zipf("ab").logs] == [0.6, 0.4]


def test_reserved_pairs_are_a_stated_share():
    nouns = [noun for topic in LEXICON.topics for noun in topic.things]
    colours = [is_reserved_colour(noun, i) for noun in nouns for i in range(len(LEXICON.colours))]
    places = [place for topic in LEXICON.topics for place in topic.places]
    names = range(len(LEXICON.female_names) + len(LEXICON.male_names))
    reserved = [is_reserved_place(name, place) for name in names for place in places]
    assert sum(colours) / len(colours) == pytest.approx(1 / 7)
    assert sum(reserved) / len(reserved) == pytest.approx(1 / 9, abs=0.002)


def test_word_classes_do_not_overlap():
    """Tags and translations go by the word alone."""
    classes = [
        {noun.word for topic in LEXICON.topics for noun in topic.things}
        | {noun.plural for topic in LEXICON.topics for noun in topic.things},
        {place.word for topic in LEXICON.topics for place in topic.places},
        {topic.word for topic in LEXICON.topics},
        {role for topic in LEXICON.topics for role in topic.roles},
        {*LEXICON.colours, *LEXICON.sizes.options, *LEXICON.traits.options},
    ]
    assert sum(map(len, classes)) == len(set().union(*classes))


@pytest.mark.parametrize(
    ("form", "word", "expected"),
    [
        (plural, "lamp", "lamps"),
        (plural, "box", "boxes"),
        (plural, "berry", "berries"),
        (plural, "toy", "toys"),
        (plural, "knife", "knives"),
        (plural, "tooth", "teeth"),
        (comparative, "large", "larger"),
        (comparative, "small", "smaller"),
        (comparative, "heavy", "heavier"),
        (comparative, "big", "bigger"),
        (adverb, "happy", "happily"),
        (quality, "gloomy", "gloominess"),
        (article, "oar", "an"),
    ],
)
def test_word_forms(form, word, expected):
    assert form(word) == expected
