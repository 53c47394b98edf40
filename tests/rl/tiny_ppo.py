"""A tiny policy, tokenizer, prompts and reward for the tests of PPO."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, PreTrainedTokenizerFast

import hftoolkit.models  # noqa: F401
from hftoolkit.models.modeling_gpt import HftGptConfig
from hftoolkit.rl.config import PPOConfig
from hftoolkit.rl.ppo_trainer import PPOTrainer

WORDS = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(17))]
EOS = 2
SIZES = dict(num_hidden_layers=2, hidden_size=16, num_attention_heads=2)


def tiny_tokenizer():
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def tiny_policy(kind="gpt2", seed=0, **changes):
    """A causal model whose weights were moved by N(0, 0.3), so that its distributions are far from uniform."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=len(WORDS), n_layer=2, n_embd=16, n_head=2, n_positions=32, **changes)
    elif kind == "llama":
        config = LlamaConfig(
            vocab_size=len(WORDS), intermediate_size=32, max_position_embeddings=32, **SIZES, **changes
        )
    else:
        config = HftGptConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES, **changes)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, EOS, 0
    model = GPT2LMHeadModel(config) if kind == "gpt2" else AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def tiny_prompts(number=16):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 5, (number,), generator=generator).tolist()
    return Dataset.from_list(
        [{"input_ids": torch.randint(3, len(WORDS), (n,), generator=generator).tolist()} for n in lengths]
    )


def tiny_text(number=64, length=5):
    """Rows of pretraining text."""
    rows = torch.randint(3, len(WORDS), (number, length), generator=torch.Generator().manual_seed(0))
    return Dataset.from_dict({"input_ids": rows.tolist()})


def count_low_words(completions, **columns):
    """The share of words w0 to w8: something that can be learned."""
    return [sum(int(word[1:]) < 9 for word in text.split()) / 8 for text in completions]


def tiny_args(folder, **changes):
    options = dict(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=1,
        per_device_train_batch_size=4, rollout_batch_size=8, num_ppo_epochs=2, response_length=6, learning_rate=1e-2,
        total_episodes=16, rollout_forward_batch_size=3,
    )  # fmt: skip
    return PPOConfig(**(options | changes))


def tiny_trainer(folder, policy=None, reward=count_low_words, prompts=None, **changes):
    """A trainer; keywords that PPOTrainer takes go to it, the others to PPOConfig."""
    names = (
        "value_model",
        "ref_model",
        "eval_dataset",
        "ptx_dataset",
        "peft_config",
        "callbacks",
        "layer_decay",
        "num_workers",
    )
    own = {name: changes.pop(name) for name in names if name in changes}
    args = tiny_args(folder, **changes)
    policy = tiny_policy() if policy is None else policy
    prompts = tiny_prompts() if prompts is None else prompts
    return PPOTrainer(policy, args, reward, prompts, tiny_tokenizer(), **own)


def history(trainer, key):
    """What was reported under a key, in order."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def weights(trainer):
    """All weights of policy and value function in one vector."""
    whole = [getattr(weight, "full_tensor", lambda weight=weight: weight)() for weight in trainer.model.parameters()]
    return torch.cat([weight.detach().flatten() for weight in whole])
