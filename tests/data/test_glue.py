"""GLUE from its official files, from the Hub, and built in; what is wrong in a file is found with its line."""

import re

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data import hub
from hftoolkit.data.glue import available_tasks, load_task
from hftoolkit.data.glue_builtin import BUILTIN_TASKS, END_OF_SENTENCE
from hftoolkit.data.glue_tasks import TASKS
from hftoolkit.errors import DataError

COLA = "gj04\t1\t\tThe sailors rode.\nks08\t0\t*\tSailors the rode.\n"
MRPC = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said "no".\t"No, he said.\n'
STSB = "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA plane.\tThe plane.\t4.750\n"
RTE = "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tentailment\n1\tIt rains.\tIt snows.\tnot_entailment\n"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
MNLI = (
    "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\tfiction\tIt rains.\tIt is wet.\tneutral\tentailment\n"
)


def arguments(source, **options):
    return ExampleArguments(dataset=str(source), **options)


def rows_of(source, name, split="train", **options):
    return list(load_task(name, arguments(source, **options))[0][split])


def test_cola_has_no_header_but_in_its_test(write):
    test = "index\tsentence\n10\tBill whistled.\n11\tThe car honked.\n"
    folder = write({"CoLA/train.tsv": COLA, "CoLA/dev.tsv": COLA, "CoLA/test.tsv": test})
    splits, summary = load_task("cola", arguments(folder))
    assert list(splits["train"]) == [
        {"idx": 0, "sentence1": "The sailors rode.", "label": 1},
        {"idx": 1, "sentence1": "Sailors the rode.", "label": 0},
    ]
    assert list(splits["test"]) == [
        {"idx": 10, "sentence1": "Bill whistled."},
        {"idx": 11, "sentence1": "The car honked."},
    ]
    assert splits["train"].features["label"].names == ["unacceptable", "acceptable"]
    assert summary["test"] == {"examples": 2, "empty_sides": 0} and summary["config"] == "cola"


def test_quotation_marks_mean_themselves_and_the_mark_is_no_text(write):
    folder = write({"MRPC/train.tsv": MRPC, "MRPC/dev.tsv": MRPC})
    expected = {"idx": 0, "sentence1": 'He said "no".', "sentence2": '"No, he said.', "label": 1}
    assert rows_of(folder, "mrpc") == [expected]


def test_scores_are_numbers(write):
    splits, _ = load_task("stsb", arguments(write({"STS-B/train.tsv": STSB, "STS-B/dev.tsv": STSB})))
    assert splits["train"]["label"][:] == [4.75] and splits["train"].features["label"] == Value("float32")


def test_mnli_has_two_validation_and_test_sets_and_diagnostics(write):
    unlabelled = "index\tsentence1\tsentence2\n0\tIt rains.\tIt is wet.\n"
    files = {f"MNLI/dev_{kind}.tsv": MNLI for kind in ("matched", "mismatched")}
    files |= {f"MNLI/test_{kind}.tsv": unlabelled for kind in ("matched", "mismatched")}
    files |= {"MNLI/train.tsv": MNLI, "diagnostic/diagnostic.tsv": unlabelled}
    folder = write(files)
    splits, _ = load_task("mnli", arguments(folder))
    assert set(splits) == {"train", "validation", "validation_mismatched", "test", "test_mismatched", "ax"}
    assert splits["train"][0]["label"] == 0 and "label" not in splits["ax"].column_names
    write(
        {
            "diagnostic/diagnostic-full.tsv": "Logic\tDomain\tPremise\tHypothesis\tLabel\n\tNews\tA.\tB.\tcontradiction\n"
        }
    )
    assert list(load_task("mnli", arguments(folder))[0]["ax"])[0]["label"] == 2


def test_windows_line_ends_and_no_last_line_end(write):
    text = RTE.replace("\n", "\r\n").removesuffix("\r\n")
    found = rows_of(write({"RTE/train.tsv": text, "RTE/dev.tsv": text}), "rte")
    assert found == rows_of(write({"RTE/train.tsv": RTE, "RTE/dev.tsv": RTE}), "rte")
    assert [row["label"] for row in found] == [0, 1]


def test_a_line_separator_of_unicode_is_text(write):
    text = RTE.replace("It rains.", "It\u2028rains\x85.")
    assert rows_of(write({"RTE/train.tsv": text, "RTE/dev.tsv": text}), "rte")[0]["sentence1"] == "It\u2028rains\x85."


def test_the_tasks_own_folder(write):
    assert len(rows_of(write({"train.tsv": RTE, "dev.tsv": RTE}), "rte")) == 2


def test_max_examples_limits_training(write):
    splits, summary = load_task("rte", arguments(write({"train.tsv": RTE, "dev.tsv": RTE}), max_examples=1))
    assert len(splits["train"]) == 1 and len(splits["validation"]) == 2 and summary["train"]["examples"] == 1


def test_the_tasks_that_are_there(write):
    folder = write({"cola/train.tsv": COLA, "SST-2/x": "", "STSB/x": "", "other/x": ""})
    assert available_tasks(arguments(folder)) == ["sst2", "cola", "stsb"]
    with pytest.raises(DataError, match=r"holds none of GLUE's folders \(MNLI, QQP"):
        available_tasks(arguments(folder / "other"))
    assert available_tasks(arguments("nyu-mll/glue")) == list(TASKS)


def test_an_empty_side_is_kept_and_counted(write):
    text = QQP + "1\t1\t2\tHow?\t\t0\n2\t3\t4\tWhy?\tWhy not?\t1\n"
    splits, summary = load_task("qqp", arguments(write({"QQP/train.tsv": text, "QQP/dev.tsv": text})))
    assert splits["train"]["sentence2"][:] == ["", "Why not?"] and summary["train"]["empty_sides"] == 1


def test_qqps_torn_lines_are_left_out_and_counted(write):
    """The official file has them; more than one in a thousand are an error."""
    whole = "".join(f"{i}\t1\t2\tHow is {i}?\tWhy?\t0\n" for i in range(1000))
    folder = write({"QQP/train.tsv": QQP + whole + "1000\t1\t2\tHow\n", "QQP/dev.tsv": QQP + whole})
    splits, summary = load_task("qqp", arguments(folder))
    assert len(splits["train"]) == 1000
    assert summary["train"]["broken_rows"] == 1 and "broken_rows" not in summary["validation"]
    write({"QQP/train.tsv": QQP + whole + "1000\t1\t2\tHow\n is it?\t0\n"})
    with pytest.raises(DataError, match=r"train.tsv:1002: the row has 4 cells, not 6"):
        load_task("qqp", arguments(folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cola", COLA.replace("\t*\t", "\t"), r"train.tsv:2: the row has 3 cells, not 4"),
        ("cola", "", r"train.tsv:1: the row has 1 cells, not 4"),
        ("rte", RTE.replace("\tnot_entailment", ""), r"train.tsv:3: the row has 3 cells, not 4"),
        ("rte", RTE.replace("not_entailment", "neutral"), r"train.tsv:3: the label 'neutral' .* RTE's: entailment, not_e"),
        ("cola", COLA.replace("\t0\t", "\t2\t"), r"train.tsv:2: the label '2' is none of CoLA's: 0, 1"),
        ("stsb", STSB.replace("4.750", "5.5"), r"train.tsv:2: the score '5.5' is no number from 0 to 5"),
        ("stsb", STSB.replace("4.750", "nan"), r"train.tsv:2: the score 'nan' is no number"),
        ("rte", RTE.replace("label", "gold"), r"train.tsv:1: no column 'label'; the header has index, sentence1"),
        ("rte", RTE.replace("It rains.\tIt is wet.", " \t"), r"train.tsv:2: the example has no text"),
        ("rte", RTE.replace("wet", "\udcff").encode("utf-8", "surrogateescape"), r"train.tsv:2: not UTF-8 at byte 18"),
        ("rte", RTE.split("\n")[0], r"RTE has no train examples"),
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_row_is_named(write, name, text, message):
    with pytest.raises(DataError, match=message):
        load_task(name, arguments(write({"train.tsv": text, "dev.tsv": text})))


def test_missing_files_are_named(write):
    folder = write({"RTE/train.tsv": RTE})
    with pytest.raises(DataError, match=r"RTE needs the file .*dev.tsv"):
        load_task("rte", arguments(folder))
    with pytest.raises(DataError, match=r"has no folder SST-2 and no train.tsv; it has RTE"):
        load_task("sst2", arguments(folder))
    with pytest.raises(DataError, match="'mrpc': of GLUE it is the task, 'rte'"):
        load_task("rte", arguments(folder, dataset_config="mrpc"))


# The Hub: what datasets returns is played, how it is fetched is tested in test_text_hub.py


def hub_splits(config):
    if config == "stsb":
        part = Dataset.from_dict({"sentence1": ["A."], "sentence2": ["B."], "label": [2.5], "idx": [0]})
        return DatasetDict(train=part, validation=part)
    names = ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = Features(
        {"premise": Value("string"), "hypothesis": Value("string"), "label": names, "idx": Value("int32")}
    )
    row = {"premise": ["A."], "hypothesis": [""], "label": [2], "idx": [5]}
    labelled, hidden = (Dataset.from_dict(row | {"label": [label]}, features=features) for label in (2, -1))
    if config == "ax":
        return DatasetDict(test=hidden)
    kinds = ("matched", "mismatched")
    return DatasetDict(
        train=labelled,
        **{f"validation_{kind}": labelled for kind in kinds},
        **{f"test_{kind}": hidden for kind in kinds},
    )


def test_from_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda wanted: asked.append(vars(wanted)) or hub_splits(wanted.dataset_config))
    splits, summary = load_task("mnli", arguments("nyu-mll/glue", dataset_revision="abc"))
    assert set(splits) == {"train", "validation", "validation_mismatched", "test", "test_mismatched", "ax"}
    assert splits["validation"][0] == {"idx": 5, "sentence1": "A.", "sentence2": "", "label": 2}
    assert "label" not in splits["test"].column_names and summary["train"]["empty_sides"] == 1
    assert [(wanted["dataset_config"], wanted["dataset_revision"]) for wanted in asked] == [
        ("mnli", "abc"),
        ("ax", "abc"),
    ]
    assert load_task("stsb", arguments("nyu-mll/glue"))[0]["train"]["label"][:] == [2.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.rename_column("premise", "text"), r"glue, mnli, train, row 0: no column 'premise'"),
        (lambda part: part.map(lambda row: {"label": -1}), r"row 0: the label -1 is none of MNLI's: 0 to 2"),
    ],
)
def test_a_hub_data_set_of_another_kind(monkeypatch, change, message):
    splits = {config: hub_splits(config) for config in ("mnli", "ax")}
    splits["mnli"]["train"] = change(splits["mnli"]["train"])
    monkeypatch.setattr(hub, "fetch", lambda wanted: splits[wanted.dataset_config])
    with pytest.raises(DataError, match=message):
        load_task("mnli", arguments("nyu-mll/glue"))


# Built in


@pytest.mark.parametrize("name", BUILTIN_TASKS)
def test_builtin(name):
    """Of the form of the official task, balanced, the same for the same seed, and no example in two splits."""
    options = {"builtin_examples": 60, "builtin_seed": 3}
    splits, summary = load_task(name, arguments("builtin", **options))
    task, train = TASKS[name], splits["train"]
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [60, 12, 12]
    assert ("sentence2" in train.column_names) == (len(task.texts) == 2) and "label" not in splits["test"].column_names
    counts = [train["label"][:].count(label) for label in sorted(set(train["label"][:]))]
    assert len(counts) == (4 if name == "stsb" else task.num_labels) and max(counts) - min(counts) <= 1
    assert list(load_task(name, arguments("builtin", **options))[0]["train"]) == list(train)
    assert (
        load_task(name, arguments("builtin", **options | {"builtin_seed": 4}))[1]["fingerprint"]
        != summary["fingerprint"]
    )
    keys = [{(row["sentence1"], row.get("sentence2")) for row in splits[split]} for split in splits]
    assert [len(key) for key in keys] == [60, 12, 12] and len(set.union(*keys)) == 84


def test_builtin_has_no_questions_like_qqps():
    assert available_tasks(arguments("builtin")) == ["mnli", "qnli", "sst2", "cola", "stsb", "mrpc", "rte"]
    with pytest.raises(DataError, match="no task like qqp; they have cola, sst2, mrpc"):
        load_task("qqp", arguments("builtin"))


def test_sentences_are_told_apart():
    text = 'It was hot. "Where is it?" asked Tom. "There." Anna left! She ran.'
    assert END_OF_SENTENCE.split(text) == [
        "It was hot.",
        '"Where is it?" asked Tom.',
        '"There."',
        "Anna left!",
        "She ran.",
    ]


def test_similarity_says_how_much_two_sentences_share():
    rows = BUILTIN_TASKS["stsb"](200, 0, "train")
    words = {score: [] for score in (0, 1, 3, 5)}
    for row in rows:
        first, second = (set(re.findall(r"\w+", row[side].lower())) for side in ("sentence1", "sentence2"))
        words[row["label"]].append(len(first & second) / len(first | second))
    means = [sum(shares) / len(shares) for _, shares in sorted(words.items())]
    assert means[0] < means[1] < min(means[2:])
    assert abs(means[2] - means[3]) < 0.1  # words alone do not tell a paraphrase from a changed part


# The real files

COUNTS = {  # train, validation, test; as shared/data/MANIFEST.md states
    "cola": (8551, 1043, 1063),
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "rte": (2490, 277, 3000),
    "wnli": (635, 71, 146),
    "qnli": (1498, 5463, 5463),
    "qqp": (18000, 5496, None),
    "mnli": (9832, 9815, None),
}
LABELS = {  # of the validation data, by class
    "cola": [322, 721],
    "sst2": [428, 444],
    "mrpc": [129, 279],
    "rte": [146, 131],
    "wnli": [40, 31],
    "qnli": [2702, 2761],
    "qqp": [3482, 2014],
    "mnli": [3479, 3123, 3213],
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", COUNTS)
def test_the_official_files(name, real_data):
    splits, summary = load_task(name, arguments(real_data / "glue"))
    assert (
        tuple(len(splits[split]) if split in splits else None for split in ("train", "validation", "test"))
        == COUNTS[name]
    )
    labels = splits["validation"]["label"][:]
    if name in LABELS:
        assert [labels.count(label) for label in range(TASKS[name].num_labels)] == LABELS[name]
    else:
        assert sum(labels) / len(labels) == pytest.approx(2.364, abs=1e-3)
    assert all("broken_rows" not in summary[split] for split in splits)
    if name == "mnli":
        assert len(splits["validation_mismatched"]) == 916
    if "test" in splits and name != "qqp":
        assert splits["test"]["idx"][:] == list(range(COUNTS[name][2]))
