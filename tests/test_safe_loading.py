"""Model folders from strangers: what is refused before anything is loaded, and that good ones pass."""

import hashlib
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from hftoolkit.errors import CheckpointError
from hftoolkit.remote_code import check_remote_code, code_files
from hftoolkit.safe_loading import (
    check_finite_weights,
    check_model_folder,
    check_safetensors,
    check_tokenizer_folder,
)

CONFIG = {"model_type": "toy", "auto_map": {"AutoConfig": "modeling_toy.ToyConfig", "AutoModel": "modeling_toy.Toy"}}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "empty": torch.zeros(0, 2)}


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "modeling_toy.py").write_text("raise SystemExit('the code was run')\n")
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "X", "vocab_file": null}')
    save_file(TENSORS, model / "model.safetensors", metadata={"format": "pt"})
    return model


def shard(folder, weight_map):
    (folder / "model.safetensors").unlink()
    save_file({"a": TENSORS["a"]}, folder / "model-1.safetensors")
    save_file({"b": TENSORS["b"]}, folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def seal(folder):
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))


def refuses(check, *mentions):
    with pytest.raises(CheckpointError) as caught:
        check()
    assert all(mention in str(caught.value) for mention in mentions), caught.value
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and caught.value.exit_code == 5


def test_a_good_folder_passes_whole_and_sharded_and_sealed(folder):
    check_model_folder(folder)
    (folder / "training_args.bin").touch()  # a pickle that nobody loads as weights
    shard(folder, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    seal(folder)
    check_model_folder(folder)
    check_finite_weights(folder)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float8_e4m3fn]
)
def test_every_type_of_tensor_passes(dtype, tmp_path):
    save_file({"x": torch.zeros(3, 5).to(dtype), "scalar": torch.tensor(1).to(dtype)}, tmp_path / "x.safetensors")
    assert check_safetensors(tmp_path / "x.safetensors") == {"x", "scalar"}


def test_a_folder_of_the_hub_cache_passes(folder, tmp_path):
    """There every file is a link into blobs/, outside the snapshot but inside the repository."""
    snapshot, blobs = tmp_path / "models--a--b/snapshots/abc", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    check_model_folder(snapshot)
    (snapshot / "vocab.txt").symlink_to(folder / "config.json")
    refuses(lambda: check_model_folder(snapshot), "vocab.txt: a link that leads outside")


def test_what_is_no_model_is_named(folder, tmp_path):
    refuses(lambda: check_model_folder(tmp_path / "nothing"), "nothing: there is no such folder")
    refuses(lambda: check_model_folder(tmp_path), "no config.json")
    (folder / "model.safetensors").unlink()
    refuses(lambda: check_model_folder(folder), "no weights, expected model.safetensors")


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, '{"a": NaN', "\xff"])
def test_a_broken_config_is_named(content, folder):
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refuses(lambda: check_model_folder(folder), "config.json: ")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_f59_pickled_weights_are_refused(name, folder):
    (folder / "model.safetensors").rename(folder / name)
    (folder / "training_args.bin").touch()
    refuses(lambda: check_model_folder(folder), f"{name}: pickled weights can run code")


def test_f59_a_pickle_under_another_name_is_refused(folder):
    torch.save(TENSORS, folder / "model.safetensors")
    refuses(lambda: check_model_folder(folder), "model.safetensors: not a whole safetensors file")


def test_f60_code_of_a_model_is_not_run_and_the_flags_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    check_model_folder(folder)  # looks at the code's name only
    refuses(lambda: check_remote_code(config, folder), "modeling_toy.py", "'toy'", "add --trust_remote_code")
    check_remote_code(config, folder, trust_remote_code=True)
    refuses(lambda: check_remote_code(config, "ada/toy"), "add --trust_remote_code and --revision with the 40 digits")
    for revision in (None, "main", "v1", "0" * 39):
        call = dict(trust_remote_code=True, revision=revision)
        refuses(lambda call=call: check_remote_code(config, "ada/toy", **call), "needs --revision", repr(revision))
    check_remote_code(config, "ada/toy", trust_remote_code=True, revision="0123456789abcdef" * 2 + "01234567")
    for harmless in ({"model_type": "gpt2"}, CONFIG | {"model_type": "gpt2"}, {}):
        check_remote_code(harmless, "ada/gpt2")


def test_f60_code_of_another_repository_is_named():
    config = {
        "model_type": "toy",
        "auto_map": {"AutoModel": "eve/evil--modeling_x.X", "AutoTokenizer": ["tok.T", None]},
    }
    assert code_files(config) == ["eve/evil--modeling_x.py", "tok.py"]
    refuses(lambda: check_remote_code(config, "ada/toy"), "eve/evil--modeling_x.py")


@pytest.mark.parametrize("entry", ["../evil.X", "/tmp/evil.X", "a/b.X", "modeling", "os; rm.X", 7, "a.b.C"])
def test_f60_an_entry_that_is_no_file_beside_the_config_is_refused(entry, folder):
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": entry}}))
    refuses(lambda: check_model_folder(folder), "auto_map")


OUTSIDE = ["../secret", "/etc/passwd", "a/../../secret", "~/secret", "C:\\secret", "\\\\host\\x", "x\0y"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_f61_file_names_that_lead_outside_are_refused(name, folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"vocab_file": name}))
    refuses(lambda: check_tokenizer_folder(folder), "tokenizer_config.json: vocab_file", "leads outside the folder")
    (folder / "tokenizer_config.json").unlink()
    shard(folder, {"a": "model-1.safetensors", "b": name})
    refuses(lambda: check_model_folder(folder), "model.safetensors.index.json: weight_map of 'b'", "leads outside")


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
def test_f61_a_link_out_of_the_folder_is_refused(name, folder, tmp_path):
    (tmp_path / "secret").write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    refuses(lambda: check_model_folder(folder), f"{name}: a link that leads outside", "secret")


def test_f61_an_index_that_does_not_fit_its_shards_is_refused(folder):
    shard(folder, {"a": "model-1.safetensors", "b": "model-3.safetensors"})
    refuses(lambda: check_model_folder(folder), "'b' should be in model-3.safetensors, which is missing")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    refuses(lambda: check_model_folder(folder), "'a' is not in model-2.safetensors")
    for broken in ([1], {"a": 1}, None):
        index.write_text(json.dumps({"weight_map": broken}))
        refuses(lambda: check_model_folder(folder), "weight_map must be a table")


def entry(start, stop, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


HEADERS = {
    "no tensor": ({}, b""),
    "holds no tensor": ({"__metadata__": {"format": "pt"}}, b""),
    "overlaps its neighbour": ({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
    "leaves a hole": ({"a": entry(0, 4), "b": entry(6, 8)}, bytes(8)),
    "cut off or altered": ({"a": entry(0, 8)}, bytes(7)),
    "cut off or altered, copy": ({"a": entry(0, 8)}, bytes(9)),
    "has 8 bytes": ({"a": entry(0, 8, [3])}, bytes(8)),
    "of shape [2, 3]": ({"a": entry(0, 8, [2, 3], "F32")}, bytes(8)),
    "not described": ({"a": entry(0, 8, dtype="F99")}, bytes(8)),
    "is not described": ({"a": {"dtype": "U8", "shape": [1]}}, bytes(1)),
    "is not described as": ({"a": 7}, b""),
    "not a count": ({"a": entry(-8, 0)}, b""),
    "that is not a count": ({"a": entry(0, 8, [8.0])}, bytes(8)),
    "or offset that is not a count": ({"a": entry(0, 8, [-1, -8])}, bytes(8)),
    "a size or offset that": ({"a": entry(False, True, [1])}, bytes(1)),
    "has a size or offset": ({"a": entry(0, 8, ["8"])}, bytes(8)),
    "the safetensors header is damaged": ([1, 2], b""),
    "header is damaged: ": ("text", b""),
}


def raw_file(text, data=b"", length=None):
    text = text if isinstance(text, bytes) else text.encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("reason", HEADERS)
def test_f62_a_forged_header_is_refused(reason, tmp_path):
    header, data = HEADERS[reason]
    (tmp_path / "x.safetensors").write_bytes(raw_file(json.dumps(header), data))
    refuses(lambda: check_safetensors(tmp_path / "x.safetensors"), "x.safetensors: ", reason)


RAW = {
    "a header of 1152921504606846976 bytes in 10 bytes": raw_file("{}", length=2**60),
    "in 100000010 bytes": None,  # longer than the library's limit; made as a sparse file
    "not a whole safetensors file": b"",
    "not a whole": b"\x02\0\0",
    "'a' appears twice": raw_file(f'{{"a": {json.dumps(entry(0, 1))}, "a": {json.dumps(entry(0, 1))}}}', bytes(1)),
    "header is damaged": raw_file(b"\xff\xfe{}"),
    "the safetensors header is damaged": raw_file("{" * 50),
    "damaged": raw_file("[" * 200_000),
}


@pytest.mark.parametrize("reason", RAW)
def test_f62_a_file_that_is_no_table_of_tensors_is_refused(reason, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_file("{}", length=100_000_001) if RAW[reason] is None else RAW[reason])
    if RAW[reason] is None:
        with path.open("r+b") as file:
            file.truncate(100_000_010)
    refuses(lambda: check_safetensors(path), "x.safetensors: ", reason)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 60, 200, -1, -9])
def test_f62_a_file_cut_anywhere_is_refused(length, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    refuses(lambda: check_model_folder(folder), "model.safetensors: ")


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_f62_whatever_the_library_refuses_is_refused_here(position, change):
    """One altered byte of the header: the library loads it only where check_safetensors lets it pass."""
    import pathlib
    import tempfile

    content = bytearray(save(TENSORS))
    position %= len(content) - sum(t.numel() * t.element_size() for t in TENSORS.values())
    content[position] ^= change
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / "x.safetensors"
        path.write_bytes(content)
        try:
            check_safetensors(path)
        except CheckpointError:
            return
        load_file(path)


def test_an_altered_byte_is_noticed_where_there_are_checksums(folder):
    seal(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    refuses(lambda: check_model_folder(folder), "model.safetensors: altered since it was saved")
    (folder / "modeling_toy.py").rename(folder / "other.py")
    (folder / "config.json").write_text("{}")
    refuses(lambda: check_model_folder(folder), "config.json: altered")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_f32_weights_that_are_not_finite_are_refused(value, dtype, folder):
    weights = {"good": torch.ones(3), "ids": torch.arange(3), "bad": torch.tensor([1.0, value, value]).to(dtype)}
    refuses(lambda: check_finite_weights(weights), "1 tensors hold NaN or infinity: bad (2 numbers)")
    save_file(weights, folder / "model.safetensors")
    refuses(lambda: check_finite_weights(folder), "model.safetensors: bad (2 numbers)")


def test_f32_the_largest_finite_numbers_pass():
    check_finite_weights({"x": torch.full((9,), torch.finfo(torch.float32).max), "empty": torch.zeros(0)})
    check_finite_weights({"x": torch.ones(4).to(torch.float8_e5m2)})
    refuses(lambda: check_finite_weights({"x": torch.tensor([math.inf]).to(torch.float8_e5m2)}), "x (1 numbers)")
