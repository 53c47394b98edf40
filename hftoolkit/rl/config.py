"""The settings of PPO: those of transformers' TrainingArguments and the following.

One step of Trainer is one update, on per_device_train_batch_size x gradient_accumulation_steps x processes responses
(the minibatch). A rollout of `rollout_batch_size` responses is cut into minibatches `num_ppo_epochs` times.

Papers: InstructGPT is Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Appendix C.4; N+ is Huang et al. 2024,
https://arxiv.org/abs/2403.17031.
"""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hftoolkit.errors import DataError
from hftoolkit.rl.kl_control import LARGEST_ERROR

POSITIVE = ("temperature", "cliprange", "cliprange_value", "gamma", "kl_horizon", "kl_target", "score_clip", "max_kl")
AT_LEAST_ONE = (
    "rollout_batch_size", "num_ppo_epochs", "response_length", "rollout_forward_batch_size", "total_episodes",
    "max_prompt_length", "ptx_batch_size",
)  # fmt: skip
NOT_NEGATIVE = (
    "kl_coef", "vf_coef", "ptx_coef", "missing_eos_penalty", "value_learning_rate", "num_sample_completions",
)  # fmt: skip


@dataclass
class PPOConfig(TrainingArguments):
    """Settings of PPOTrainer; the names are those of TRL's former PPOConfig where it had them."""

    learning_rate: float = field(default=1e-5, metadata={"help": "of the policy (a value head shares it)"})
    value_learning_rate: float | None = field(
        default=None, metadata={"help": "of the value head or model; that of the policy where it is not given"}
    )
    adam_epsilon: float = field(default=1e-5, metadata={"help": "1e-5, as in lm-human-preferences and N+"})
    lr_scheduler_type: str = field(default="linear", metadata={"help": "schedule of the learning rate, in updates"})
    logging_steps: float = field(default=1, metadata={"help": "updates between two reports"})
    rollout_batch_size: int = field(
        default=64, metadata={"help": "responses sampled for one rollout, in all processes"}
    )
    rollout_forward_batch_size: int = field(
        default=64, metadata={"help": "responses sampled and scored at a time in one process"}
    )
    num_ppo_epochs: int = field(default=4, metadata={"help": "passes over each rollout"})
    total_episodes: int | None = field(
        default=None,
        metadata={"help": "responses sampled in all, in whole rollouts; with max_steps the fewer steps count"},
    )
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "longest prompt, in tokens; longer ones are an error, or see on_long_prompt"}
    )
    on_long_prompt: str = field(
        default="stop",
        metadata={
            "help": "stop, skip the prompt, or truncate it from the left",
            "choices": ["stop", "skip", "truncate"],
        },
    )
    response_length: int = field(default=53, metadata={"help": "longest response, in tokens (53 in N+)"})
    temperature: float = field(default=1.0, metadata={"help": "logits are divided by it, everywhere"})
    stop_token_ids: list[int] | None = field(
        default=None, metadata={"help": "tokens that end a response; the tokenizer's end of text if not given"}
    )
    stop_strings: list[str] | None = field(
        default=None, metadata={"help": "texts that end a response too; rewards read what comes before them"}
    )
    rollout_backend: str = field(
        default="native",
        metadata={
            "help": "native (finished rows are dropped) or generate (transformers' own)",
            "choices": ["native", "generate"],
        },
    )
    cache_implementation: str | None = field(
        default=None,
        metadata={"help": "of rollout_backend generate, as in GenerationConfig (static); native preallocates its own"},
    )
    use_vllm: bool = field(
        default=False, metadata={"help": "rollouts are sampled by vLLM (extra vllm, GPUs); the following as in TRL"}
    )
    vllm_mode: str = field(
        default="colocate",
        metadata={"help": "colocate (on the GPUs of the training) or server", "choices": ["colocate", "server"]},
    )
    vllm_model_impl: str = field(
        default="auto", metadata={"help": "vllm, transformers (any model of the Hub) or auto"}
    )
    vllm_enable_sleep_mode: bool = field(
        default=False, metadata={"help": "vLLM gives its memory back while the policy is updated"}
    )
    vllm_gpu_memory_utilization: float = field(
        default=0.3, metadata={"help": "share of a GPU's memory that vLLM takes"}
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs that share one copy of vLLM's model"})
    vllm_max_model_length: int | None = field(default=None, metadata={"help": "prompt and response, in tokens"})
    vllm_server_base_url: str | None = field(default=None, metadata={"help": "takes the place of host and port"})
    vllm_server_host: str = field(default="0.0.0.0", metadata={"help": "of the server"})
    vllm_server_port: int = field(default=8000, metadata={"help": "of the server"})
    vllm_server_timeout: float = field(default=240.0, metadata={"help": "seconds to wait for the server"})
    vllm_group_port: int = field(default=51216, metadata={"help": "port over which weights go to the server"})
    cliprange: float = field(default=0.2, metadata={"help": "clipping of the policy's ratio"})
    cliprange_value: float = field(default=0.2, metadata={"help": "clipping of the value's change"})
    vf_coef: float = field(default=0.1, metadata={"help": "weight of the value loss"})
    gamma: float = field(default=1.0, metadata={"help": "discount per token"})
    lam: float = field(default=0.95, metadata={"help": "lambda of generalised advantage estimation"})
    whiten_advantages: bool = field(default=True, metadata={"help": "advantages to mean 0 and variance 1"})
    whiten_rewards: bool = field(default=False, metadata={"help": "rewards to variance 1, their mean unchanged"})
    bootstrap_truncated: bool = field(
        default=False, metadata={"help": "a response that was cut off goes on with its value, not with 0"}
    )
    kl_coef: float = field(
        default=0.05, metadata={"help": "penalty per nat of KL to the reference (0.02: InstructGPT)"}
    )
    kl_estimator: str = field(
        default="k1", metadata={"help": "of the KL per token in the reward", "choices": ["k1", "k3"]}
    )
    kl_target: float | None = field(
        default=None, metadata={"help": "KL per response, in nats, to which kl_coef is steered; fixed if not given"}
    )
    kl_horizon: int = field(default=10_000, metadata={"help": "episodes over which kl_coef is steered"})
    max_kl: float | None = field(
        default=None,
        metadata={
            "help": "training stops at a rollout with a larger mean KL per response, in nats, before its updates"
        },
    )
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "taken from the score of a response that does not end"}
    )
    missing_eos_score: float | None = field(
        default=None, metadata={"help": "score of a response that does not end, whatever the reward says (-1 in N+)"}
    )
    score_clip: float | None = field(default=None, metadata={"help": "scores are kept between its negative and it"})
    score_norm: str | None = field(
        default=None,
        metadata={"help": "running: scores less their mean so far, by their deviation", "choices": ["running"]},
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "of the reward functions, 1 each if not given"}
    )
    on_reward_error: str = field(
        default="stop",
        metadata={
            "help": "what a reward that raises or is no number does: stop, or leave that response out and count it",
            "choices": ["stop", "skip"],
        },
    )
    ptx_coef: float = field(
        default=0.0, metadata={"help": "weight of the language-model loss on ptx_dataset (27.8: InstructGPT)"}
    )
    ptx_batch_size: int = field(
        default=8, metadata={"help": "rows of ptx_dataset per response of a minibatch (8: InstructGPT)"}
    )
    num_sample_completions: int = field(default=4, metadata={"help": "responses shown at each evaluation"})

    def __post_init__(self):
        self._check()
        self.remove_unused_columns = False  # reward functions read the other columns
        super().__post_init__()
        _ = self.updates_per_rollout  # known now that the number of processes is

    def _check(self):
        """Refuse impossible values before anything is loaded.

        Raises:
            ValueError: naming the setting, its value and the range.
        """
        ranges = (
            (POSITIVE, lambda value: value > 0, "above 0"),
            (AT_LEAST_ONE, lambda value: value >= 1, "1 or more"),
            (NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
            (("lam", "vllm_gpu_memory_utilization"), lambda value: 0 <= value <= 1, "in [0, 1]"),
        )
        for names, is_good, words in ranges:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_good(value):
                    raise ValueError(f"{name} must be {words}, got {value}")
        choices = {
            "on_long_prompt": ("stop", "skip", "truncate"),
            "rollout_backend": ("native", "generate"),
            "vllm_mode": ("colocate", "server"),
            "kl_estimator": ("k1", "k3"),
            "on_reward_error": ("stop", "skip"),
            "score_norm": (None, "running"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if "" in (self.stop_strings or ()):
            raise ValueError(f"stop_strings must not be empty texts, got {self.stop_strings!r}")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target steers kl_coef by factors, so that 0 stays 0: give a kl_coef above 0")
        if self.kl_target is not None and self.kl_horizon <= LARGEST_ERROR * self.rollout_batch_size:
            raise ValueError(
                f"kl_horizon must be above {LARGEST_ERROR} x rollout_batch_size with kl_target, got {self.kl_horizon} with "
                f"rollout_batch_size {self.rollout_batch_size}: one rollout could make kl_coef 0 or negative; raise "
                f"kl_horizon, to {10 * self.rollout_batch_size} say, or make the rollout smaller"
            )
        if self.cache_implementation is not None and self.rollout_backend != "generate":
            raise ValueError(
                "cache_implementation is read by rollout_backend generate, and this is native, whose cache is preallocated: "
                "leave cache_implementation out, or set rollout_backend generate"
            )
        if self.use_vllm and self.rollout_backend != "native":
            raise ValueError("use_vllm and rollout_backend generate exclude each other: leave rollout_backend native")
        if self.missing_eos_penalty is not None and self.missing_eos_score is not None:
            raise ValueError("missing_eos_penalty and missing_eos_score exclude each other: give one of them")

    @property
    def minibatch_size(self):
        """Responses of one update, in all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    @property
    def updates_per_rollout(self):
        """Updates that one rollout gives.

        Raises:
            DataError: the rollout cannot be cut into minibatches; it names sizes that can.
        """
        rollout, minibatch = self.rollout_batch_size, self.minibatch_size
        if rollout % minibatch:
            below, above = rollout // minibatch * minibatch, -(-rollout // minibatch) * minibatch
            sizes = " or ".join(str(size) for size in (below, above) if size)
            parts = (
                f"per_device_train_batch_size {self.per_device_train_batch_size} x gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps} x {self.world_size} processes"
            )
            raise DataError(
                f"rollout_batch_size {rollout} is no multiple of the minibatch of {minibatch} ({parts}): set "
                f"rollout_batch_size to {sizes}, or the minibatch to a divisor of {rollout}"
            )
        return self.num_ppo_epochs * (rollout // minibatch)
