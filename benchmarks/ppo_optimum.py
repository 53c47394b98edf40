"""PPO on a task whose optimum is known exactly: how near does it come, and how soon?

    python benchmarks/ppo_optimum.py --seeds 3
    python benchmarks/ppo_optimum.py --quick

A language model writes clauses `determiner adjective noun verb punctuation`; the adjective is positive or negative with
probability 1/2, after a clause it goes on with probability 0.7, at most six clauses, then the end token. The reward is
(positive - negative adjectives) / 6. The policy that maximises E[reward] - beta KL to the language model reaches
J* = beta log E_ref[exp(reward / beta)] (Ziegler et al. 2019, Section 2.1; here in closed form by a recursion over the
clauses), 0.7049 for beta = 0.05. Reported is J / J*, where J is measured on fresh samples with the KL of every token
computed from both whole distributions.
"""

import argparse
import copy
import json
import math
import random
import sys
import tempfile
import time

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)

CLAUSES, GO_ON, BETA, LENGTH = 6, 0.7, 0.05, 31
WORDS = {
    "determiner": ["the", "a", "this", "that"],
    "positive": [f"good{i}" for i in range(8)],
    "negative": [f"bad{i}" for i in range(8)],
    "noun": [f"noun{i}" for i in range(12)],
    "verb": [f"verb{i}" for i in range(12)],
    "punctuation": [".", "!", ";"],
}
SPECIAL = ["<pad>", "<bos>", "<eos>"]


def make_tokenizer():
    """A word-level tokenizer of the grammar's words."""
    words = SPECIAL + [word for kind in WORDS.values() for word in kind]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="right"
    )


def sentence(rng):
    """One response of the grammar, without the special tokens."""
    words = []
    for clause in range(CLAUSES):
        adjective = WORDS["positive" if rng.random() < 0.5 else "negative"]
        kinds = (WORDS["determiner"], adjective, WORDS["noun"], WORDS["verb"], WORDS["punctuation"])
        words += [rng.choice(kind) for kind in kinds]
        if clause + 1 < CLAUSES and rng.random() > GO_ON:
            break
    return " ".join(words)


def reward(prompts, completions, **columns):
    """(positive - negative adjectives) / 6 of each completion."""
    counts = ((text.count("good"), text.count("bad")) for text in completions)
    return [(good - bad) / CLAUSES for good, bad in counts]


def exact_optimum(beta=BETA):
    """J* = beta log Z, Z = E_ref[exp(reward / beta)]: Z_6 = m, Z_k = m (0.3 + 0.7 Z_{k+1}), m = cosh(1 / (6 beta))."""
    m = math.cosh(1 / (CLAUSES * beta))
    z = m
    for _ in range(CLAUSES - 1):
        z = m * (1 - GO_ON + GO_ON * z)
    return beta * math.log(z)


def train_language_model(tokenizer, steps=260, seed=0):
    """A GPT-2 of 2 layers of 64 that has learned the grammar."""
    set_seed(seed)
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 64, "vocab_size": len(tokenizer)}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **ids, pad_token_id=tokenizer.pad_token_id))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    rng = random.Random(seed)
    for _ in range(steps):
        batch = tokenizer([f"<bos> {sentence(rng)} <eos>" for _ in range(128)], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval(), loss.item()


@torch.no_grad()
def measure(policy, reference, tokenizer, number=512, seed=1):
    """Reward, exact KL per response in nats, and J = reward - beta KL, on fresh samples."""
    from hftoolkit.rl.sampling import sample_responses

    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(number, LENGTH, generator=generator, dtype=torch.float64)
    stops = {"stop_token_ids": [tokenizer.eos_token_id], "pad_id": tokenizer.pad_token_id}
    found = sample_responses(policy.eval(), [[tokenizer.bos_token_id]] * number, uniforms, **stops)
    ids = torch.cat([torch.full((number, 1), tokenizer.bos_token_id), found.ids], dim=1)
    new, old = (model(input_ids=ids).logits[:, :-1].log_softmax(2) for model in (policy, reference))
    live = torch.arange(LENGTH) < found.lengths.unsqueeze(1)
    kl = ((new.exp() * (new - old)).sum(2) * live).sum() / number
    pairs = zip(found.ids.tolist(), found.lengths.tolist(), strict=True)
    texts = tokenizer.batch_decode([row[:n] for row, n in pairs], skip_special_tokens=True)
    mean = sum(reward(texts, texts)) / number
    return mean, float(kl), mean - BETA * float(kl)


class Watch(TrainerCallback):
    """Measures J every `every` rollouts, outside of the clock."""

    def __init__(self, every, updates, reference, tokenizer):
        self.every, self.updates, self.reference, self.tokenizer = every, updates, reference, tokenizer
        self.rows, self.seconds = [], 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.process_time()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % (self.every * self.updates) == 0:
            self.seconds += time.process_time() - self.start
            found = measure(model.policy, self.reference, self.tokenizer)
            self.rows.append((state.global_step // self.updates, self.seconds, *found, found[2] / exact_optimum()))
            self.start = time.process_time()


def separate_value_model(model):
    """A value model with the trunk of the language model and a head that begins at zero."""
    critic = GPT2ForSequenceClassification(GPT2Config(**model.config.to_dict() | {"num_labels": 1}))
    critic.transformer.load_state_dict(model.transformer.state_dict())
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def train(model, tokenizer, rollouts, seed, folder, every=10, separate_value=False, **settings):
    """PPO from the language model; rows of (rollout, CPU seconds, reward, KL, J, J / J*)."""
    from hftoolkit.rl.config import PPOConfig
    from hftoolkit.rl.ppo_trainer import PPOTrainer

    options = {
        "output_dir": folder, "seed": seed, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "per_device_train_batch_size": 16, "rollout_batch_size": 64,
        "num_ppo_epochs": 4, "response_length": LENGTH, "kl_coef": BETA,
        "total_episodes": 64 * rollouts,
    }  # fmt: skip
    args = PPOConfig(**(options | settings))
    prompts = Dataset.from_dict({"input_ids": [[tokenizer.bos_token_id]] * 64 * rollouts})
    policy = copy.deepcopy(model)
    critic = separate_value_model(model) if separate_value else None
    trainer = PPOTrainer(policy, args, reward, prompts, tokenizer, value_model=critic)
    watch = Watch(every, trainer.updates_per_rollout, model, tokenizer)
    trainer.add_callback(watch)
    trainer.train()
    return watch.rows


def main(argv=None):
    """Print a table, and last one line of JSON with the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--value_learning_rate", type=float, default=1e-3)
    parser.add_argument("--vf_coef", type=float, default=0.1)
    parser.add_argument("--lam", type=float, default=0.95)
    parser.add_argument("--shared_trunk", action="store_true", help="a value head on the policy, no value model")
    parser.add_argument("--quick", action="store_true", help="20 rollouts with one seed")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rollouts, seeds = (20, 1) if options.quick else (options.rollouts, options.seeds)
    tokenizer = make_tokenizer()
    model, loss = train_language_model(tokenizer)
    print(f"language model: {loss:.3f} nats per token; J* = {exact_optimum():.4f}")  # noqa: T201
    names = ("learning_rate", "value_learning_rate", "vf_coef", "lam")
    rates = {name: getattr(options, name) for name in names} | {"separate_value": not options.shared_trunk}
    results = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows = train(model, tokenizer, rollouts, seed, folder, **rates)
        for number, seconds, mean, kl, _, share in rows:
            print(  # noqa: T201
                f"seed {seed}  rollout {number:3}  {seconds:6.1f} CPU s  reward {mean:.3f}  KL {kl:.2f}  J/J* {share:.3f}"
            )
        results.append(rows)
    points = [[round(sum(row[i] for row in same) / seeds, 4) for i in range(6)] for same in zip(*results, strict=True)]
    print(json.dumps({"mean_rows": points, "optimum": exact_optimum()}))  # noqa: T201
    return results


if __name__ == "__main__":
    sys.exit(main() is None)
