"""One PPO step (rollout, scoring, 4 epochs of updates) against the PPOTrainer that TRL removed after 1.12.0.

    pip install --target trl112 --no-deps trl==1.12.0
    python benchmarks/ppo_step.py --trl trl112            # about 15 minutes on one core
    python benchmarks/ppo_step.py --trl trl112 --quick

Both sides train copies of the same GPT-2 (4 layers of 256, vocabulary 5,000), with a value model, a reward model and a
reference as large, on 32 prompts a step in one minibatch, 48 new tokens, fp32 (TRL's bf16 does nothing under
transformers 5). "full": prompts of 32 tokens, answers of 48. "ragged": prompts of 8 to 32 tokens, answers that end.
Sides take turns; the figure is the median of the ratios of their CPU seconds. Further rows: ours with bfloat16, with the
value head on the policy's trunk, and with both, against the same TRL; and each of these with the same weights in our GPT
("gpt"). Memory is the peak above the models, each side in a process of its own.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import torch

KINDS = ("full", "ragged")
OURS = ("fp32", "bf16", "shared", "shared_bf16", "gpt", "gpt_bf16", "gpt_shared", "gpt_shared_bf16")
PARTS = 4  # micro-batches of our minibatch: the losses are the same, and rows of like length lie together
PROMPTS, PROMPT, LENGTH, V, EOS, PAD = 32, 32, 48, 5000, 1, 0


def make_tokenizer():
    """Words w0 to w4999, so that text and tokens are the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{n}": n for n in range(2, V)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def make_models(kind):
    """(policy, value model, reward model); for "ragged" the end token has a probability of about 1/100."""
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    torch.manual_seed(0)
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 128, "vocab_size": V, **no_dropout}
    config = GPT2Config(**sizes, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD, num_labels=1)
    policy = GPT2LMHeadModel(config)
    with torch.no_grad():
        policy.transformer.ln_f.bias[0] = 4.0
        policy.transformer.wte.weight[:, 0] = 0.0
        policy.transformer.wte.weight[EOS, 0] = 1.0 if kind == "ragged" else -5.0
    return policy, GPT2ForSequenceClassification(config), GPT2ForSequenceClassification(config)


def make_prompts(kind, number):
    """Lists of token ids."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(8, PROMPT + 1, (number,), generator=generator) if kind == "ragged" else [PROMPT] * number
    return [torch.randint(2, V, (int(n),), generator=generator).tolist() for n in lengths]


def common(folder, **more):
    """Arguments that both configurations share."""
    options = {
        "output_dir": folder, "use_cpu": True, "report_to": [], "save_strategy": "no", "seed": 0, "learning_rate": 1e-6,
        "per_device_train_batch_size": PROMPTS, "num_ppo_epochs": 4, "response_length": LENGTH, "temperature": 1.0,
        "disable_tqdm": True, "gradient_checkpointing": False, "logging_strategy": "no", "gradient_accumulation_steps": 1,
    }  # fmt: skip
    return options | more


def make_theirs(kind, folder, trl):
    """A function that makes one step with TRL's trainer."""
    sys.path.insert(0, trl)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    policy, value, reward = make_models(kind)
    args = PPOConfig(**common(folder, bf16=False, num_mini_batches=1, total_episodes=PROMPTS, stop_token="eos",
                              num_sample_generations=0, local_rollout_forward_batch_size=PROMPTS))  # fmt: skip
    data = Dataset.from_dict({"input_ids": make_prompts(kind, PROMPTS)})
    trainer = PPOTrainer(args, make_tokenizer(), policy, copy.deepcopy(policy), reward, data, value, eval_dataset=data)
    return trainer.train


def make_ours(kind, folder, variant):
    """A function that makes one step with ours."""
    from datasets import Dataset

    from hftoolkit.convert import from_stock
    from hftoolkit.rl.config import PPOConfig
    from hftoolkit.rl.ppo_trainer import PPOTrainer
    from hftoolkit.rl.reward_model import RewardModel

    policy, value, reward = make_models(kind)
    if variant.startswith("gpt"):
        policy, value, reward = (from_stock(model).eval() for model in (policy, value, reward))
    tokenizer = make_tokenizer()
    args = PPOConfig(
        **common(folder, bf16=variant.endswith("bf16"), rollout_batch_size=PROMPTS, total_episodes=PROMPTS)
        | {"per_device_train_batch_size": PROMPTS // PARTS, "gradient_accumulation_steps": PARTS},
        rollout_forward_batch_size=PROMPTS,
    )
    scores = RewardModel(reward, tokenizer, batch_size=PROMPTS)

    def score(prompts, completions, **columns):
        return scores(prompts, [f" {text}" for text in completions])

    data = Dataset.from_dict({"input_ids": make_prompts(kind, PROMPTS)})
    value = None if "shared" in variant else value
    return PPOTrainer(policy, args, score, data, tokenizer, value_model=value, ref_model=copy.deepcopy(policy)).train


def silently(function):
    """CPU seconds of a call whose output is thrown away."""
    shown, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    start = time.process_time()
    try:
        function()
    finally:
        sys.stdout.close()
        sys.stdout = shown
    return time.process_time() - start


def memory(name):
    """A figure of /proc/self/status in kB; ru_maxrss would begin at what the parent process had."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def peak(side, kind, trl):
    """Peak memory above the models in MB, of one step in a process of its own."""
    command = [sys.executable, __file__, "--trl", trl, "--only", side, "--kind", kind]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(found.strip().splitlines()[-1])["megabytes"]


def only(side, kind, trl):
    """Print the peak memory of one step of one side."""
    with tempfile.TemporaryDirectory() as folder:
        step = make_theirs(kind, folder, trl) if side == "theirs" else make_ours(kind, folder, side)
        before = memory("VmRSS")
        silently(step)
    megabytes = (memory("VmHWM") - before) / 1e3
    print(json.dumps({"megabytes": megabytes}))  # noqa: T201


def compare(kind, trl, rounds):
    """Seconds of both sides and the median ratios, for each of our variants."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = make_theirs(kind, folder, trl)
        ours = {variant: make_ours(kind, folder, variant) for variant in OURS}
        for step in (theirs, *ours.values()):
            silently(step)  # caches and first allocations
        times = {"theirs": []} | {variant: [] for variant in OURS}
        for _ in range(rounds):
            times["theirs"].append(silently(theirs))
            for variant, step in ours.items():
                times[variant].append(silently(step))
    found = {"theirs": statistics.median(times["theirs"])}
    for variant in OURS:
        ratios = [a / b for a, b in zip(times["theirs"], times[variant], strict=True)]
        found[variant] = statistics.median(times[variant]), statistics.median(ratios), min(ratios), max(ratios)
    return found


def main(argv=None):
    """Print a table, and last one line of JSON with the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl", required=True, help="folder with trl 1.12.0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of ragged answers")
    parser.add_argument("--only", choices=("theirs", *OURS), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, default="ragged", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.only:
        only(options.only, options.kind, options.trl)
        return
    result = {}
    for kind in KINDS[1:] if options.quick else KINDS:
        found = compare(kind, options.trl, 1 if options.quick else options.rounds)
        memory = {side: peak(side, kind, options.trl) for side in ("theirs", "fp32")}
        print(f"{kind}: TRL {found['theirs']:.2f} s, {memory['theirs']:.0f} MB")  # noqa: T201
        for variant in OURS:
            seconds, ratio, least, most = found[variant]
            print(f"  ours {variant:11}  {seconds:.2f} s  {ratio:.2f} x ({least:.2f}-{most:.2f})")  # noqa: T201
            result[f"{kind}_{variant}_ratio"] = round(ratio, 3)
        result[f"{kind}_memory_ratio"] = round(memory["fp32"] / memory["theirs"], 3)
        print(f"  memory fp32 {memory['fp32']:.0f} MB, {result[f'{kind}_memory_ratio']:.2f} x")  # noqa: T201
    print(json.dumps(result | {"time_ratio": result["ragged_fp32_ratio"]}))  # noqa: T201


if __name__ == "__main__":
    main()
