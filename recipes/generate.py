"""Continue prompts with a language model.

    python recipes/generate.py --model_name_or_path runs/gpt --prompt "The lamp"
    python recipes/generate.py --model_name_or_path runs/gpt --prompt "The lamp" --num_beams 4 --do_sample false

Works with every causal language model of transformers, ours or not.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import ModelArguments, parse_arguments
from hftoolkit.errors import MachineError, one_line_errors


@dataclass
class TaskArguments:
    prompt: list[str] = field(default_factory=lambda: [""], metadata={"help": "texts to continue; empty starts anew"})
    as_document: bool = field(
        default=True,
        metadata={
            "help": "begin prompts with the token that begins a document; false: as sft, reward and ppo read them"
        },
    )
    max_new_tokens: int = field(default=64, metadata={"help": "tokens to add at the most", "min": 1})
    do_sample: bool = field(default=True, metadata={"help": "draw tokens; false takes the likeliest"})
    temperature: float = field(default=1.0, metadata={"help": "below 1 sharpens the distribution", "above": 0})
    top_k: int = field(default=0, metadata={"help": "draw from the k likeliest tokens; 0 is all", "min": 0})
    top_p: float = field(default=1.0, metadata={"help": "draw from the likeliest share p", "above": 0, "max": 1})
    num_beams: int = field(default=1, metadata={"help": "beams of beam search", "min": 1})
    num_return_sequences: int = field(default=1, metadata={"help": "continuations per prompt", "min": 1})
    seed: int = field(default=0, metadata={"help": "of the drawing"})
    output_file: str | None = field(default=None, metadata={"help": "JSON lines with prompt and continuation"})


def main(model_args, task_args):
    import json
    import os
    from pathlib import Path

    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.loading import load_model, load_tokenizer

    # 1. Tokenizer and model. Prompts of one batch are padded on the left, where generation never looks.
    tokenizer = load_tokenizer(model_args)
    tokenizer.padding_side = "left"
    model = load_model(AutoModelForCausalLM, model_args, tokenizer).eval()
    set_seed(task_args.seed)

    # 2. Prompts, each begun as the training documents were; an empty one has no other beginning.
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    starts = [[begin] if task_args.as_document or not text else [] for text in task_args.prompt]
    ids = [
        start + tokenizer(text, add_special_tokens=False)["input_ids"]
        for start, text in zip(starts, task_args.prompt, strict=True)
    ]
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    limit = getattr(model.config, "max_position_embeddings", 1_000_000)  # what is recurrent has none
    room = limit - batch["input_ids"].shape[1]

    # 3. Generate.
    options = {"do_sample": task_args.do_sample, "num_beams": task_args.num_beams}
    if task_args.do_sample:
        options.update(temperature=task_args.temperature, top_k=task_args.top_k, top_p=task_args.top_p)
    with torch.no_grad():
        output = model.generate(
            **batch,
            **options,
            max_new_tokens=max(1, min(task_args.max_new_tokens, room)),
            num_return_sequences=task_args.num_return_sequences,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    # 4. Show, and keep.
    prompts = [prompt for prompt in task_args.prompt for _ in range(task_args.num_return_sequences)]
    results = [{"prompt": p, "continuation": text} for p, text in zip(prompts, texts, strict=True)]
    for result in results:
        print(f"{result['prompt']}{result['continuation']}\n")
    if task_args.output_file is not None:
        path = Path(task_args.output_file)
        try:
            path.with_suffix(".tmp").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in results))
            os.replace(path.with_suffix(".tmp"), path)
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error}") from error
    return results


def parse(argv=None):
    return parse_arguments(ModelArguments, TaskArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
