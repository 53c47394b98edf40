"""The one screen that says, before a run starts, what will happen; and what the run needs in memory."""

import resource
import sys

import torch

# Numbers kept per trained weight, by the class name of the optimizer; others are measured after the first step.
STATES_PER_WEIGHT = {"AdamW": 2, "Adam": 2, "Muon": 1, "Adagrad": 1, "RMSprop": 1, "SGD": 0}


def amount(number_of_bytes):
    """Bytes for people: `4.7 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number_of_bytes < 1000:
            return f"{number_of_bytes:.3g} {unit}"
        number_of_bytes /= 1000
    return f"{number_of_bytes:.3g} TB"


def tensor_bytes(tensors):
    """Bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def optimizer_states(optimizer):
    """The tensors an optimizer keeps; none before its first step."""
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


def memory_estimate(model, optimizer=None):
    """Bytes of weights (buffers with them), gradients and optimizer states; states is None when not known before.

    Activations depend on the batch and are not counted.
    """
    trained = tensor_bytes(weight for weight in model.parameters() if weight.requires_grad)
    inner = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps the optimizer
    per_weight = STATES_PER_WEIGHT.get(type(inner).__name__)
    if per_weight == 0 and inner.param_groups[0]["momentum"]:
        per_weight = 1
    states = None if per_weight is None else per_weight * trained
    return tensor_bytes([*model.parameters(), *model.buffers()]), trained, states


def measured_memory(optimizer, device):
    """What one step has shown: the optimizer's states, exactly, and the peak of the process or the device."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    where = "process"
    if device.type == "cuda":
        peak, where = torch.cuda.max_memory_allocated(device), "device"
    return f"optimizer {amount(tensor_bytes(optimizer_states(optimizer)))}; peak of the {where} {amount(peak)}"


def describe_data(trainer, summary):
    """Name, fingerprint and sizes of the data, as far as they are known."""
    summary, parts = dict(summary or {}), []
    if "name" in summary:
        parts.append(summary["name"] + (f" ({summary['fingerprint']})" if summary.get("fingerprint") else ""))
    parts += [f"{count:,} {name.replace('_', ' ')}" for name, count in summary.items() if isinstance(count, int)]
    for split, sizes in summary.items():
        if isinstance(sizes, dict):
            counts = [f"{count:,} {unit}" for unit, count in sizes.items() if isinstance(count, int)]
            parts.append(f"{split} {', '.join(counts).replace('_', ' ')}")
    rows = {"training": trainer.train_dataset, "evaluation": trainer.eval_dataset}
    sized = {kind: data for kind, data in rows.items() if hasattr(data, "__len__") and not isinstance(data, dict)}
    parts += [f"{len(data):,} {kind} rows" for kind, data in sized.items()]
    return "; ".join(parts) or "a stream"


def describe_run(trainer, state, data_summary=None, resumed_from=None):
    """The screen: model, data, steps, device, memory, folder, starting point; one line each."""
    args, model = trainer.args, trainer.model
    total = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    batch = f"{args.per_device_train_batch_size} rows"
    batch += f" x {args.gradient_accumulation_steps} accumulated" * (args.gradient_accumulation_steps > 1)
    batch += f" x {args.world_size} processes" * (args.world_size > 1)
    epochs = "" if state.num_train_epochs > 1_000_000 else f", {state.num_train_epochs:,} epochs at most"
    weights, gradients, states = memory_estimate(model, trainer.optimizer)
    memory = f"weights {amount(weights)}, gradients {amount(gradients)}, optimizer "
    memory += "unknown before its first step" if states is None else f"{amount(states)}"
    frozen = tensor_bytes(weight for other in getattr(trainer, "frozen_models", ()) for weight in other.parameters())
    memory += f", reference and reward models {amount(frozen)}" * (frozen > 0)
    lines = {
        "model": f"{getattr(model, 'shown_name', type(model).__name__)}, {total:,} parameters"
        + f", {trained:,} of them trained" * (trained < total),
        "data": describe_data(trainer, data_summary),
        "training": f"{state.max_steps:,} steps of {batch}{epochs}",
        "device": f"{args.device}, {torch.get_num_threads()} threads, {str(next(model.parameters()).dtype).removeprefix('torch.')}",
        "memory": f"{memory}; activations not included",
        "output": args.output_dir,
        "start": f"resumes at step {state.global_step:,} from {resumed_from}" if resumed_from else "from step 0",
    }
    return "\n".join(f"{name:<10}{text}" for name, text in lines.items())
