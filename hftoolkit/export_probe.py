"""The other side of an export check: a program without hftoolkit that loads a model as a stranger would.

`export.check_export` runs this file as a process of its own. It imports nothing from hftoolkit and first makes
hftoolkit impossible to import, because an editable install is visible to every process of the environment.

    python -P hftoolkit/export_probe.py FOLDER

FOLDER holds task.json ({"name", "heads", "threads", "text"}) and inputs.safetensors; the probe writes there
outputs.safetensors (`<head>/<loaded or reloaded>/<output>`) and report.json ({head: {"error", "module"}, ...}).
"""

import json
import sys
from pathlib import Path


class BlockHftoolkit:
    """A finder, asked before all others, that finds no hftoolkit."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "hftoolkit":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def load_head(head, name):
    """Load `name` with an Auto class; what the checkpoint does not hold is drawn from the same seed on both sides."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, head).from_pretrained(name, trust_remote_code=True).eval()


def outputs_of(model, inputs):
    """Every floating point tensor that the model returns, by name; each row is a choice of its own where choices are."""
    import torch

    if type(model).__name__.endswith("ForMultipleChoice"):
        inputs = {key: value.unsqueeze(1) for key, value in inputs.items()}
    with torch.no_grad():
        outputs = model(**inputs)
    tensors = {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    return {key: value.contiguous().clone() for key, value in tensors.items() if value.is_floating_point()}


def probe_head(head, name, inputs, folder):
    """Load, run, save, load again, run again: the outputs of both, and the module that the class came from."""
    loaded = load_head(head, name)
    outputs = {f"{head}/loaded/{key}": value for key, value in outputs_of(loaded, inputs).items()}
    loaded.save_pretrained(folder / head)
    reloaded = load_head(head, str(folder / head))
    outputs |= {f"{head}/reloaded/{key}": value for key, value in outputs_of(reloaded, inputs).items()}
    return outputs, {"error": None, "module": type(loaded).__module__}


def main(folder):
    """Do the task in `folder`, as the module docstring says."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    task, inputs = json.loads((folder / "task.json").read_text()), load_file(folder / "inputs.safetensors")
    torch.set_num_threads(task["threads"])
    outputs, report = {}, {}
    for head in task["heads"]:
        try:
            found, report[head] = probe_head(head, task["name"], inputs, folder / "saved")
            outputs |= found
        except Exception as error:  # whatever a stranger would see: the caller turns it into one line
            report[head] = {"error": f"{type(error).__name__}: {error}"}
    if task["text"] is not None:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(task["name"], trust_remote_code=True)
            report["AutoTokenizer"] = {"error": None, "input_ids": tokenizer(task["text"])["input_ids"]}
        except Exception as error:
            report["AutoTokenizer"] = {"error": f"{type(error).__name__}: {error}"}
    save_file(outputs, folder / "outputs.safetensors")
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    sys.meta_path.insert(0, BlockHftoolkit)
    main(Path(sys.argv[1]))
