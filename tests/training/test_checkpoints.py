"""Checkpoints are whole or not there: every kind of damage is seen, and an older whole one is found."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from tiny_run import tiny_model

from hftoolkit.errors import CheckpointError
from hftoolkit.training import checkpoints


def make_checkpoint(run_folder, step, name=None):
    """A small sealed checkpoint with a file in a folder of its own."""
    folder = run_folder / (name or f"checkpoint-{step}")
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "optimizer.bin").write_bytes(bytes(range(200)))
    (folder / "model.bin").write_bytes(step.to_bytes(4) * 100)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder / checkpoints.MANIFEST).write_text(json.dumps({"format": checkpoints.FORMAT}))
    checkpoints.seal(folder)
    return folder


@pytest.fixture
def run_folder(tmp_path):
    """A run with whole checkpoints at steps 5, 10 and 20."""
    for step in (5, 10, 20):
        make_checkpoint(tmp_path, step)
    return tmp_path


def flip_a_byte(folder):
    content = bytearray((folder / "model.bin").read_bytes())
    content[123] ^= 1
    (folder / "model.bin").write_bytes(content)


def take_step_five(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("checkpoint-5"), folder)


DAMAGES = {
    "truncated": (lambda folder: os.truncate(folder / "model.bin", 100), "model.bin was altered"),
    "flipped byte": (flip_a_byte, "model.bin was altered"),
    "missing file": (lambda folder: (folder / "shards" / "optimizer.bin").unlink(), "shards/optimizer.bin is missing"),
    "extra file": (lambda folder: (folder / "more.bin").write_bytes(b""), "more.bin does not belong to it"),
    "another step's files": (take_step_five, "its content is that of step 5"),
    "unsealed": (lambda folder: (folder / checkpoints.SEAL).unlink(), "it has no SHA256SUMS"),
    "empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()), "it has no SHA256SUMS"),
    "garbage in the seal": (
        lambda folder: (folder / checkpoints.SEAL).write_bytes(b"\xff\xfe"),
        "it has no SHA256SUMS",
    ),
}


def test_a_sealed_checkpoint_is_whole_and_sha256sum_agrees(run_folder):
    assert checkpoints.faults(run_folder / "checkpoint-20") == []
    assert checkpoints.newest_whole(run_folder).name == "checkpoint-20"
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=run_folder / "checkpoint-20", check=True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_and_the_older_one_taken(run_folder, damage, caplog):
    break_it, complaint = DAMAGES[damage]
    break_it(run_folder / "checkpoint-20")
    assert complaint in checkpoints.faults(run_folder / "checkpoint-20")[0]
    assert checkpoints.newest_whole(run_folder).name == "checkpoint-10"
    assert complaint in caplog.text and "falling back" in caplog.text
    assert (run_folder / "damaged-checkpoint-20").is_dir() and not (run_folder / "checkpoint-20").exists()


def test_several_damaged_ones_are_walked_past(run_folder):
    for step in (10, 20):
        flip_a_byte(run_folder / f"checkpoint-{step}")
    assert checkpoints.newest_whole(run_folder).name == "checkpoint-5"


def test_none_whole_is_an_error_that_changes_nothing(run_folder):
    for step in (5, 10, 20):
        flip_a_byte(run_folder / f"checkpoint-{step}")
    with pytest.raises(CheckpointError, match="checkpoint-5: model.bin was altered") as caught:
        checkpoints.newest_whole(run_folder)
    assert caught.value.exit_code == 5
    assert [path.name for path in checkpoints.list_checkpoints(run_folder)] == [f"checkpoint-{n}" for n in (5, 10, 20)]


def test_no_checkpoint_at_all_is_a_fresh_start(tmp_path):
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoints.newest_whole(tmp_path) is None


def test_a_newer_format_is_refused(run_folder):
    folder = run_folder / "checkpoint-20"
    (folder / checkpoints.MANIFEST).write_text(json.dumps({"format": 2}))
    checkpoints.seal(folder)
    with pytest.raises(CheckpointError, match="has format 2; this version of hftoolkit reads 1"):
        checkpoints.newest_whole(run_folder)


def test_what_a_killed_save_left_is_removed(run_folder):
    staging = run_folder / checkpoints.STAGING
    half = make_checkpoint(staging, 30)
    (half / checkpoints.SEAL).unlink()
    checkpoints.finish_interrupted_saves(run_folder)
    assert not staging.exists() and not (run_folder / "checkpoint-30").exists()


def test_a_sealed_save_that_was_not_yet_renamed_is_kept(run_folder):
    make_checkpoint(run_folder / checkpoints.STAGING, 30)
    checkpoints.finish_interrupted_saves(run_folder)
    assert checkpoints.newest_whole(run_folder).name == "checkpoint-30"


def test_publishing_replaces_a_checkpoint_of_the_same_step(run_folder):
    (run_folder / "checkpoint-20" / "model.bin").write_bytes(b"old")
    staged = make_checkpoint(run_folder / checkpoints.STAGING, 20)
    checkpoints.publish(staged, run_folder)
    assert checkpoints.faults(run_folder / "checkpoint-20") == []
    assert not (run_folder / checkpoints.STAGING).exists()


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [5, 10, 20]),
        (1, None, [20]),
        (2, None, [10, 20]),
        (1, 5, [5, 20]),
        (2, 5, [5, 20]),
        (3, 5, [5, 10, 20]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(run_folder, limit, best, left):
    checkpoints.rotate(run_folder, limit, best and str(run_folder / f"checkpoint-{best}"))
    assert [checkpoints.step_of(path) for path in checkpoints.list_checkpoints(run_folder)] == left


def test_a_checkpoint_of_the_same_model_is_accepted(tmp_path):
    """The same names and shapes; the numbers may differ, and a tied weight that is stored once is there twice."""
    saved, model = tiny_model(), tiny_model(seed=1)
    saved.save_pretrained(tmp_path)
    shapes = checkpoints.tensor_shapes(tmp_path)
    assert "lm_head.weight" in model.state_dict().keys() - shapes.keys()
    assert not torch.equal(saved.lm_head.weight, model.lm_head.weight)
    assert checkpoints.require_same_model(tmp_path, model) is None
    assert {name: tuple(model.state_dict()[name].shape) for name in shapes} == shapes
    model.register_buffer("table", torch.ones(1))
    with pytest.raises(CheckpointError, match="table is not in the checkpoint"):
        checkpoints.require_same_model(tmp_path, model)
    model._keys_to_ignore_on_save = ["table"]  # as Marian's positions, which the class computes
    assert checkpoints.require_same_model(tmp_path, model) is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"vocab_size": 60}, r"transformer.wte.weight is \(50, 16\) there and \(60, 16\) here"),
        ({"n_layer": 2}, "transformer.h.1.ln_1.weight is not in the checkpoint"),
        ({"n_layer": 0}, "transformer.h.0.ln_1.weight is only in the checkpoint"),
        ({"tie_word_embeddings": False}, "lm_head.weight is not in the checkpoint"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, changes, difference):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"gpt2 there, gpt2 here.*{difference}"):
        checkpoints.require_same_model(tmp_path, tiny_model(**changes))
