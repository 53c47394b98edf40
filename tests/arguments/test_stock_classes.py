"""The fields that are read from the source are those of the imported classes."""

import dataclasses

from hftoolkit import stock_arguments
from hftoolkit.arguments import DataArguments, ModelArguments, tables

TRAINING = "transformers.TrainingArguments"


def test_stock_fields_equal_those_of_the_imported_classes(parse, recipe):
    """The fields that `ast` finds are those that the class has, also through bases in another package."""
    import transformers

    ours = stock_arguments.read_fields(TRAINING)
    theirs = {item.name: item for item in dataclasses.fields(transformers.TrainingArguments)}
    assert list(ours) == list(theirs)
    for name, item in theirs.items():
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()
        assert ours[name].default in (default, stock_arguments.UNKNOWN), name
        assert ours[name].help == " ".join([item.metadata["help"]])
    from transformers.trainer_utils import SchedulerType

    assert set(ours["lr_scheduler_type"].choices) == {member.value for member in SchedulerType}
    arguments = parse("architecture: gpt\nuse_cpu: true\nmax_steps: 3\n", classes=recipe)
    assert isinstance(arguments[3], transformers.TrainingArguments)
    assert arguments[3].max_steps == 3
    assert arguments[3].given_arguments == {"architecture": "gpt", "use_cpu": True, "max_steps": 3}


def test_stock_fields_follow_bases_into_another_package():
    sft = stock_arguments.read_fields("trl.SFTConfig")
    assert {"packing", "max_length", "output_dir", "warmup_steps"} <= sft.keys()
    assert sft["learning_rate"].default == 2e-5, "the subclass overrides its base"


def test_the_tables_speak_of_keys_that_exist():
    known = {*stock_arguments.read_fields("transformers.Seq2SeqTrainingArguments")}
    known |= {*stock_arguments.read_fields("trl.SFTConfig")}
    ours = {item.name for kind in (ModelArguments, DataArguments) for item in dataclasses.fields(kind)}
    for table in (tables.STOCK_LIMITS, tables.STOCK_CHOICES, tables.STOCK_RULES):
        assert table.keys() <= known
    for groups in (tables.INERT, tables.EXPLAINED):
        assert {key for keys in groups.values() for key in keys} <= known | ours
    assert not tables.GONE.keys() & (known | ours), "a key that exists is not gone"
