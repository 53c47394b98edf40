"""Parallel text from files, rows and the built-in languages, and what is wrong with it."""

import gzip
import json

import pytest
from datasets import Dataset

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.microworld import translate
from hftoolkit.data.parallel import load_parallel
from hftoolkit.errors import DataError

ENGLISH = ["A dog runs.", "Two men eat.", "The sea is blue.", "A child sings."]
GERMAN = ["Ein Hund rennt.", "Zwei Männer essen.", "Das Meer ist blau.", "Ein Kind singt."]


def write(folder, name, lines):
    text = "".join(line + "\n" for line in lines)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train.en", ENGLISH)
    write(tmp_path, "train.de.gz", GERMAN)
    write(tmp_path, "val.en", ENGLISH[:2])
    write(tmp_path, "val.de", GERMAN[:2])
    return tmp_path


def load(dataset, languages=("en", "de"), **options):
    return load_parallel(ExampleArguments(dataset=str(dataset)), languages, **options)


def rows(part):
    return list(zip(part["source"], part["target"], strict=True))


def test_a_folder(folder):
    (folder / "README.md").write_text("about")
    splits, left_out = load(folder)
    assert rows(splits["train"]) == list(zip(ENGLISH, GERMAN, strict=True))
    assert rows(splits["validation"]) == list(zip(ENGLISH[:2], GERMAN[:2], strict=True))
    assert left_out == {"train": 0, "validation": 0}
    assert rows(load(folder, ("de", "en"))[0]["train"]) == list(zip(GERMAN, ENGLISH, strict=True))


def test_test_sets(folder):
    for stem in ("test_2016", "test_2017"):
        write(folder, f"{stem}.en", ENGLISH[2:])
        write(folder, f"{stem}.de", GERMAN[2:])
    assert list(load(folder)[0]) == ["train", "validation", "test_2016", "test_2017"]
    for language in ("en", "de"):
        (folder / f"test_2017.{language}").unlink()
    assert list(load(folder)[0]) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("name", "language"), [("train.zh_CN", "zh_CN"), ("train.pt-br.GZ", "pt-br"), ("train.de.txt", "de"),
                           ("train.es-419.txt.gz", "es-419")],
)  # fmt: skip
def test_names_of_files(tmp_path, name, language):
    write(tmp_path, "train.en", ENGLISH)
    write(tmp_path, name, GERMAN)
    write(tmp_path, "other.dev", ["a language called dev"])
    write(tmp_path, "train.json", ["not a language"])
    splits, _ = load(tmp_path, ("en", language), validation_fraction=0)
    assert rows(splits["train"]) == list(zip(ENGLISH, GERMAN, strict=True))


def test_two_files_of_the_same_side(folder):
    write(folder, "train.de", GERMAN[:2])
    with pytest.raises(DataError, match="train.de and train.de.gz are the same side of train"):
        load(folder)


def test_a_folder_without_parallel_files(tmp_path):
    write(tmp_path, "europarl.en", ENGLISH)
    for dataset in (tmp_path, tmp_path / "europarl.en"):
        with pytest.raises(DataError, match=r".jsonl, .*.csv, .tsv, .*; or give a folder with train.en and train.de"):
            load(dataset)


def test_only_a_line_feed_ends_a_line(tmp_path):
    """Windows line ends, a byte order mark; signs that only some programs take for the end of a line stay inside."""
    english = ["A dog\rruns.", "Two\u2028men.", "The\x85sea.", "A\x0cchild."]
    (tmp_path / "train.en").write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in english).encode())
    write(tmp_path, "train.de", GERMAN)
    splits, _ = load(tmp_path, validation_fraction=0)
    assert rows(splits["train"]) == list(zip(english, GERMAN, strict=True))


@pytest.mark.parametrize("form", ["translation", "columns", "tsv", "csv", "json", "parquet"])
def test_rows_with_a_column_per_language(tmp_path, form):
    pairs = [{"en": a, "de": b} for a, b in zip(ENGLISH, GERMAN, strict=True)]
    if form in ("tsv", "csv"):
        file, mark = tmp_path / f"pairs.{form}", "\t" if form == "tsv" else ","
        file.write_text("".join(mark.join(line) + "\n" for line in [("en", "de"), *(p.values() for p in pairs)]))
    elif form == "json":
        file = tmp_path / "pairs.json"
        file.write_text(json.dumps(pairs))
    elif form == "parquet":
        file = tmp_path / "pairs.parquet"
        Dataset.from_list([{"translation": pair} for pair in pairs]).to_parquet(file)
    else:
        file = tmp_path / "pairs.jsonl"
        made = [{"translation": pair} if form == "translation" else pair for pair in pairs]
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
    splits, _ = load(file, validation_fraction=0.25)
    assert rows(splits["train"]) == list(zip(ENGLISH, GERMAN, strict=True))[:3]
    assert rows(splits["validation"]) == [(ENGLISH[3], GERMAN[3])]


def test_a_column_called_translation(tmp_path):
    (tmp_path / "pairs.csv").write_text("text,translation\nA dog.,Ein Hund.\n")
    splits, _ = load(tmp_path / "pairs.csv", ("text", "translation"), validation_fraction=0)
    assert rows(splits["train"]) == [("A dog.", "Ein Hund.")]


def test_builtin():
    arguments = ExampleArguments(builtin_examples=50)
    splits, _ = load_parallel(arguments, ("en", "tamo"))
    assert {split: len(part) for split, part in splits.items()} == {"train": 50, "validation": 10, "test": 10}
    assert all(translate(source) == target for source, target in rows(splits["train"]))
    other, _ = load_parallel(arguments, ("tamo", "en"))
    assert other["test"]["source"] == splits["test"]["target"]
    short, _ = load_parallel(ExampleArguments(builtin_examples=50, max_examples=7), ("en", "tamo"))
    assert rows(short["train"]) == rows(splits["train"])[:7]


@pytest.mark.parametrize(("longer", "total"), [("en", 5), ("de.gz", 6)])
def test_files_of_different_length(folder, longer, total):
    added = ["A bird flies away."] * (total - 4)
    write(folder, f"train.{longer}", (ENGLISH if longer == "en" else GERMAN) + added)
    with pytest.raises(DataError, match=f"has {total} lines, but .* has 4: line 5 of the first, 'A bird flies away.'"):
        load(folder)


def test_blank_sides(folder):
    write(folder, "train.en", [ENGLISH[0], " ", *ENGLISH[2:]])
    write(folder, "train.de.gz", [*GERMAN[:3], ""])
    with pytest.raises(DataError, match=r"2 pairs .*train.en:2 \(source\), train.en:4 \(target\); .*--skip_empty"):
        load(folder)
    splits, left_out = load(folder, skip_empty=True)
    assert rows(splits["train"]) == [(ENGLISH[0], GERMAN[0]), (ENGLISH[2], GERMAN[2])]
    assert left_out == {"train": 2, "validation": 0}


def test_languages_exchanged_in_one_split(folder):
    write(folder, "val.en", GERMAN[:2])
    write(folder, "val.de", ENGLISH[:2])
    with pytest.raises(DataError, match="the validation data look exchanged: their en side .* the de side"):
        load(folder)


def test_languages_that_share_their_words(folder):
    """By chance one word more is common to the exchanged sides: no proof that they are exchanged."""
    for language in ("en", "de.gz"):
        write(folder, f"train.{language}", ENGLISH)
    write(folder, "train.de.gz", [*ENGLISH[:3], "A bird sings."])
    write(folder, "val.en", ["A bird runs."])
    write(folder, "val.de", ["A child runs."])
    assert len(load(folder)[0]["validation"]) == 1


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (("en", "en"), "both 'en'"),
        (("en", "fr"), "no file is named train.fr; the languages are de, en"),
    ],
)
def test_languages_that_are_not_there(folder, languages, message):
    with pytest.raises(DataError, match=message):
        load(folder, languages)


def test_a_side_without_its_partner(folder):
    write(folder, "test.en", ENGLISH)
    with pytest.raises(DataError, match=r"there is test.en, but no test.de"):
        load(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"en": "A dog."}', r"pairs.jsonl:2: no column in the language 'de' \(the columns: en\)"),
        ('{"en": "A dog.", "de": null}', "pairs.jsonl:2: no text in the language 'de'"),
        ('["A dog.", "Ein Hund."]', "pairs.jsonl:2: a row is an object with the languages en and de"),
        ('{"en": ', "pairs.jsonl:2:1: broken JSON"),
    ],
)
def test_bad_rows(tmp_path, line, message):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"en": "A cat.", "de": "Eine Katze."}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "pairs.jsonl")
