"""Look inside a recurrent network: units along a sentence, the number of a subject, how far gradients reach.

    python recipes/inspect_recurrent.py --config rnn/inspect --output_folder runs/inspect
    python recipes/inspect_recurrent.py --model_name_or_path user/lstm-lm --sentence "The lamp in the hall is red."

Papers: Lakretz et al. 2019, https://aclanthology.org/N19-1002; Bengio et al. 1994; Pascanu et al. 2013,
https://arxiv.org/abs/1211.5063.
Without a model, a small one is trained on sentences that are generated here (half a minute): does it keep the number of
the subject past a noun of the other number, and which unit does it take? With --model_name_or_path, a language model of
train_recurrent_lm is shown along --sentence. Both leave inspect.json and pictures in output_folder.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    output_folder: str = field(default="runs/inspect", metadata={"help": "folder of inspect.json and the pictures"})
    sentence: str | None = field(default=None, metadata={"help": "what a trained model reads"})
    units: int | None = field(default=None, metadata={"help": "of each layer shown along it; none is 24", "min": 1})
    cell_type: Literal["rnn", "gru", "lstm"] | None = field(default=None, metadata={"help": "of a model made here"})
    hidden_size: int | None = field(default=None, metadata={"help": "of the model trained here; none is 16", "min": 1})
    steps: int | None = field(default=None, metadata={"help": "of its training; none is 300", "min": 1})
    seed: int = field(default=0, metadata={"help": "of the models trained here", "min": 0})


def main(model_args, task_args):
    import json
    from pathlib import Path

    from hftoolkit.interpret.gradient_flow import compare_cells, draw_gradient_norms

    is_new = model_args.model_name_or_path is None
    unread = ("sentence", "units") if is_new else ("cell_type", "hidden_size", "steps")
    if unread := [name for name in unread if getattr(task_args, name) is not None]:
        remedy = "give --model_name_or_path, or leave it out" if is_new else "leave it out, or the model"
        raise DataError(f"{unread[0]} is of {'a trained model' if is_new else 'one that is trained here'}: {remedy}")
    folder = Path(task_args.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    curves = compare_cells(seed=task_args.seed)
    results = inspect_number(folder, task_args) if is_new else inspect_model(folder, model_args, task_args, curves)
    draw_gradient_norms(curves, folder / "gradients.png")
    results["gradient_norms"] = curves
    (folder / "inspect.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: value for key, value in results.items() if key != "gradient_norms"}))
    return results


def inspect_number(folder, task_args):
    """Train, test the agreement of subject and verb, remove each unit, and draw the one that costs most."""
    import numpy as np
    import torch

    from hftoolkit.interpret.agreement import IDS, ablations, agreement, test_items, train_model
    from hftoolkit.interpret.cells import draw_units, state_of, trace_model

    sizes = task_args.steps or 300, task_args.hidden_size or 16, task_args.cell_type or "lstm"
    model, loss = train_model(*sizes, task_args.seed)
    items = test_items(phrases=2)
    found, without = agreement(model, items), ablations(model, items)
    unit = min(range(len(without)), key=lambda number: without[number]["margin"])
    shown, rows, tokens = {}, [], None
    for condition in items:
        nouns = [word + "s" * (number == "plural") for number, word in zip(condition.split("-"), ("boy", "car"))]  # noqa: B905
        words = ["<eos>", "the", nouns[0], "near", "the", nouns[1], "behind", "the", nouns[1]]
        states = state_of(trace_model(model, torch.tensor([IDS[word] for word in words]))[-1])
        shown[condition], tokens = states[:, unit].tolist(), ["<eos>", "the", "boy(s)", *words[3:5], "car(s)"]
        rows.append(shown[condition])
    tokens += ["behind", "the", "car(s)"]
    title = f"unit {unit}: without it the right form is {without[unit]['margin']:.1f} nats likelier, not {found['margin']:.1f}"
    draw_units(np.array(rows), tokens, folder / "number_unit.png", names=list(items), title=title)
    results = {"loss": loss, "agreement": found, "number_unit": unit, "without_it": without[unit]}
    margins = [round(entry["margin"], 4) for entry in without]
    return results | {"without_each": margins, "number_unit_along": shown}


def inspect_model(folder, model_args, task_args, curves):
    """Draw the units of every layer that change most along a sentence; its own gradients join the curves."""
    import torch
    from transformers import AutoModelForCausalLM

    from hftoolkit.interpret.cells import draw_units, state_of, trace_model
    from hftoolkit.interpret.gradient_flow import gradient_norms
    from hftoolkit.loading import load_model, load_tokenizer, require_model_type

    require_model_type(model_args, "hft_rnn")
    if not task_args.sentence:
        raise DataError("a trained model needs a text to read: --sentence")
    tokenizer = load_tokenizer(model_args)
    model = load_model(AutoModelForCausalLM, model_args, tokenizer).eval()
    ids = tokenizer(task_args.sentence, add_special_tokens=False)["input_ids"]
    tokens = [tokenizer.decode([number]).strip() or "_" for number in ids]
    found = {"tokens": tokens, "layers": []}
    for number, layer in enumerate(trace_model(model, torch.tensor(ids))):
        states = state_of(layer)
        units = states.std(0).nan_to_num().argsort(descending=True)[: task_args.units or 24].tolist()
        path = folder / f"units_layer_{number}.png"
        title = f"layer {number}, of {states.shape[1]}"
        draw_units(states[:, units].T.numpy(), tokens, path, names=units, title=title)
        found["layers"].append({"units": units, "states": states[:, units].T.tolist()})
    if model.config.projection_size is None:
        rows = model.model.embed_tokens(torch.tensor(ids))
        curves["this model, first layer"] = gradient_norms(model.model.layers[0].forward_rnn, rows).tolist()
    return found


def parse(argv=None):
    return parse_arguments(ModelArguments, TaskArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
