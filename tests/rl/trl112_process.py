"""One step of the PPOTrainer that TRL removed after 1.12.0 on given responses; what it computed on the way goes to a file.

    PYTHONPATH=FOLDER_OF_TRL python trl112_process.py JOBS RESULTS

JOBS holds a list of jobs: models, prompts with one response each (padded on the right), and changed settings. The
functions that the trainer calls are replaced by ones that note what they are given: the trainer's own text is at work.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

from tiny_ppo import tiny_policy, tiny_tokenizer  # noqa: E402
from transformers import GPT2ForSequenceClassification  # noqa: E402


def main(jobs_file, results_file):
    torch.set_num_threads(1)
    GPT2ForSequenceClassification(tiny_policy().config)  # a class returns hidden states once one of it was built
    results = [one_step(**job) for job in torch.load(jobs_file, weights_only=False)]
    torch.save(results, results_file)


def one_step(policy, old_policy, reference, value, reward, prompts, responses, settings):
    """Noted by name: what was gathered row by row is in the order of `rows`, the numbers of the prompts."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    noted = {"values": [], "scores": [], "means": [], "rows": []}
    plain = {
        name: getattr(ppo_trainer, name) for name in ("batch_generation", "get_reward", "masked_whiten", "masked_mean")
    }
    numbers = {tuple(prompt): number for number, prompt in enumerate(prompts)}

    def batch_generation(model, queries, size, pad_token_id, generation_config):
        rows = [numbers[tuple(query)] for query in queries.tolist()]
        noted["rows"] = rows
        ids = torch.cat([queries, responses[rows]], dim=1)
        logits = old_policy(input_ids=ids).logits[:, queries.shape[1] - 1 : -1] / settings["temperature"]
        return ids, logits.detach()

    def get_reward(model, ids, pad_token_id, context_length):
        found = plain["get_reward"](model, ids, pad_token_id, context_length)
        noted["values"].append(found[0][:, context_length - 1 : -1].squeeze(-1))
        noted["scores"].append(found[1].clone())
        return found

    def masked_whiten(values, mask, shift_mean=True):
        noted["advantages" if shift_mean else "rewards"] = values.clone()
        if not shift_mean:
            return values  # asked for only so that the rewards are seen here
        noted["whitened"] = plain["masked_whiten"](values, mask, shift_mean)
        return noted["whitened"]

    def masked_mean(values, mask, axis=None):
        found = plain["masked_mean"](values, mask, axis)
        if values.requires_grad:  # of twice the value loss, then of the policy loss, for every micro-batch
            noted["means"].append((found.item(), int(mask.sum())))
        return found

    replaced = (batch_generation, get_reward, masked_whiten, masked_mean)
    for function in replaced:
        setattr(ppo_trainer, function.__name__, function)
    with tempfile.TemporaryDirectory() as folder:
        options = dict(
            output_dir=folder, use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True, seed=0,
            learning_rate=0.0, num_ppo_epochs=1, num_mini_batches=1, total_episodes=len(prompts), whiten_rewards=True,
            num_sample_generations=0, gradient_checkpointing=False, response_length=responses.shape[1],
            local_rollout_forward_batch_size=len(prompts), per_device_train_batch_size=len(prompts),
        )  # fmt: skip
        data = Dataset.from_dict({"input_ids": prompts})
        tokenizer = tiny_tokenizer()
        tokenizer.padding_side = "left"
        models = (policy, reference, reward, data, value)
        PPOTrainer(PPOConfig(**options | settings), tokenizer, *models, eval_dataset=data).train()
    for name, function in plain.items():
        setattr(ppo_trainer, name, function)
    noted["values"], noted["scores"] = noted["values"][0], noted["scores"][1]
    return {name: found.detach() if torch.is_tensor(found) else found for name, found in noted.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
