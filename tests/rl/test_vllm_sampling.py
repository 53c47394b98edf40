"""Rollouts by vLLM: TRL's code for it at work on a stand-in engine that records what it is given."""

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from tiny_ppo import EOS, count_low_words, history, tiny_policy, tiny_prompts, tiny_tokenizer, tiny_trainer
from transformers import GPT2LMHeadModel

from hftoolkit.errors import MachineError
from hftoolkit.rl.sampling import sample_responses
from hftoolkit.rl.stop_strings import StopStrings


class Engine:
    """What vllm.LLM is to TRL: it loads a model by its name, takes weights, and answers with ids."""

    made = None

    def __init__(self, model, **options):
        Engine.made, self.options, self.syncs, self.asked = self, options, [], []
        self.model = GPT2LMHeadModel.from_pretrained(model).eval()
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))

    def load_weights(self, pairs):
        own = dict(self.model.named_parameters())
        for name, weight in pairs:
            own[name].data.copy_(weight)
            self.syncs[-1].append(name) if self.syncs else self.syncs.append([name])

    def reset_prefix_cache(self):
        self.syncs.append([])

    def generate(self, prompts, sampling_params, use_tqdm):
        rows = [prompt["prompt_token_ids"] for prompt in prompts]
        self.asked.append((rows, sampling_params))
        generator = torch.Generator().manual_seed(len(self.asked))
        uniforms = torch.rand(len(rows), sampling_params["max_tokens"], generator=generator, dtype=torch.float64)
        strings = sampling_params.get("stop") and StopStrings(sampling_params["stop"], tiny_tokenizer())
        options = dict(stop_token_ids=sampling_params["stop_token_ids"], pad_id=0, stop_strings=strings or None)
        made = sample_responses(self.model, rows, uniforms, temperature=sampling_params["temperature"], **options)
        ids = [row[:n] for row, n in zip(made.ids.tolist(), made.lengths.tolist(), strict=True)]
        outputs = [[SimpleNamespace(token_ids=row, logprobs=None)] for row in ids]
        pairs = zip(rows, outputs, strict=True)
        return [SimpleNamespace(prompt_token_ids=row, outputs=output) for row, output in pairs]


@pytest.fixture
def engine(monkeypatch):
    """A stand-in for vLLM; TRL sets variables for its processes, which are put back."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    module = import_module("trl.generation.vllm_generation")
    monkeypatch.setattr(import_module("trl.import_utils"), "is_vllm_available", lambda: True)
    monkeypatch.setattr(module, "is_vllm_available", lambda: True)
    monkeypatch.setattr(module, "LLM", Engine, raising=False)
    monkeypatch.setattr(module, "SamplingParams", dict, raising=False)
    return Engine


def saved_policy(folder):
    tiny_policy().save_pretrained(folder)
    return GPT2LMHeadModel.from_pretrained(folder)


def test_every_rollout_is_sampled_with_the_weights_of_the_policy(tmp_path, engine):
    policy = saved_policy(tmp_path / "policy")
    policy.transformer.wte.weight.data.mul_(1.1)  # otherwise than in the folder that vLLM has loaded
    seen = []

    def reward(completion_ids, **columns):
        made, own = engine.made, dict(policy.named_parameters())
        assert all(torch.equal(weight, own[name]) for name, weight in made.model.named_parameters())
        seen.extend(completion_ids)
        return [float(len(ids)) for ids in completion_ids]

    options = dict(use_vllm=True, temperature=0.8, missing_eos_penalty=1.0, vllm_gpu_memory_utilization=0.2)
    trainer = tiny_trainer(tmp_path, policy, reward, **options)
    trainer.train()
    made = engine.made
    assert made.options["gpu_memory_utilization"] == 0.2 and made.options["max_num_seqs"] == 8
    assert [len(names) for names in made.syncs] == [28, 28, 0]  # once a rollout, every weight, tied ones once
    assert len(made.asked) == 2 and made.asked[0][0] != made.asked[1][0]
    for rows, params in made.asked:
        assert len(rows) == 8 and params["stop_token_ids"] == [EOS] and params["ignore_eos"]
        assert params["temperature"] == 0.8 and params["max_tokens"] == 6 and params["top_p"] == 1.0
    assert len(seen) == 16 and any(ids[-1] == EOS for ids in seen) and any(len(ids) == 6 for ids in seen)
    assert history(trainer, "val/ratio")[0] == pytest.approx(1, abs=1e-6)
    assert history(trainer, "policy/approxkl_avg")[0] < 1e-12 < history(trainer, "policy/approxkl_avg")[1]
    assert history(trainer, "objective/kl")[0] == pytest.approx(0, abs=1e-6)
    assert history(trainer, "val/num_eos_tokens")[0] == sum(ids[-1] == EOS for ids in seen[:8])


def test_adapters_are_merged_for_it_and_evaluations_are_the_policys_own(tmp_path, engine):
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=2, init_lora_weights=False)
    policy = saved_policy(tmp_path / "policy")
    trainer = tiny_trainer(tmp_path, policy, peft_config=config, use_vllm=True, eval_dataset=tiny_prompts(6))
    before = trainer.evaluate()
    assert not engine.made.asked
    trainer.micro_batch(0)
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(engine.made.model(ids).logits, trainer.model.policy.eval()(input_ids=ids).logits)
    again = trainer.evaluate()
    assert {name: again[name] for name in before} == before


def test_strings_end_its_responses_too(tmp_path, engine):
    seen = []

    def reward(completions, completion_ids, **columns):
        seen.extend(zip(completions, completion_ids, strict=True))
        return count_low_words(completions)

    policy = saved_policy(tmp_path / "policy")
    trainer = tiny_trainer(tmp_path, policy, reward, use_vllm=True, stop_strings=["w3", "w7"], response_length=3)
    trainer.micro_batch(0)
    params = engine.made.asked[0][1]
    assert params["stop"] == ["w3", "w7"] and params["include_stop_str_in_output"]
    ended = [ids[-1] in (EOS, 6, 10) for _, ids in seen]
    assert trainer.rollout_report["val/num_eos_tokens"] == sum(ended) > 0
    assert not any("w3" in text or "w7" in text for text, _ in seen)


def test_without_vllm_or_a_policy_that_it_can_load(tmp_path, monkeypatch):
    with pytest.raises(MachineError, match=r"not installed: pip install 'hftoolkit\[vllm\]'"):
        tiny_trainer(tmp_path, use_vllm=True)
    with pytest.raises(ValueError, match="use_vllm and rollout_backend generate exclude each other"):
        tiny_trainer(tmp_path, use_vllm=True, rollout_backend="generate")
    with pytest.raises(ValueError, match="vllm_mode must be one of .*got 'alone'"):
        tiny_trainer(tmp_path, vllm_mode="alone")
    monkeypatch.setattr(import_module("trl.import_utils"), "is_vllm_available", lambda: True)
    with pytest.raises(ValueError, match="this one has no name_or_path: save it"):
        tiny_trainer(tmp_path, use_vllm=True)
