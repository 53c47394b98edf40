"""TRL's GRPOTrainer in this house: it resumes in the middle of a rollout, and is evaluated with the same random numbers.

    trainer = group_policy_trainer(model=model, reward_funcs=[...], args=grpo_config, train_dataset=prompts, ...)

Paper: Shao et al. 2024, "DeepSeekMath", https://arxiv.org/abs/2402.03300, Equation 3: PPO's clipped objective without a
value function. Of G responses to one prompt the advantage is (r - mean(r)) / std(r), the same at every token, and the KL
divergence from the reference is part of the loss (beta). This is loss_type grpo without use_bias_correction_kl, as in the
configuration gpt/grpo; TRL's defaults are dapo, which weighs tokens and not answers the same, and another gradient of the KL.

TRL does not give a model position ids in the pass that is trained. A class that does not derive them from the attention
mask (transformers' GPT-2) would compute other probabilities behind padding than in sampling, and is refused.
"""

import contextlib
import copy
import functools
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hftoolkit.data.microworld.instruction_tasks import read_prompt
from hftoolkit.data.prompts import prompt_ids
from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.training.adaptation import without_adapter
from hftoolkit.training.disk import read_json, write_json
from hftoolkit.training.trl_trainers import TrlManners, require_plain_output_layer, require_trl, switch_off_dropout

PROGRESS_FOLDER = "grpo"
CHECKED_TOKENS, PADDING, TOLERANCE = 8, 3, 1e-2


def group_policy_trainer(judge=None, **options):
    """A GRPOTrainer on rows with `prompt`, text or conversation.

    The reference is the model before training: a copy of it, or with an adapter the model with the adapter switched
    off; with beta 0 there is none.

    Args:
        judge: called with the trainer at every evaluation; returns more metrics, {name: number}.
        options: of trl.GRPOTrainer; the model is one already, and eval_dataset a single data set.

    Raises:
        MachineError: trl is not installed.
        DataError: settings that TRL refuses, or vLLM.
        CheckpointError: a model whose logits are not its output layer's of its last hidden states, or that computes
            others where a row is padded.
    """
    require_trl("group relative policy optimisation")
    import trl.trainer.grpo_trainer as theirs

    class GroupPolicyTrainer(GroupPolicy, theirs.GRPOTrainer):
        pass

    model, args = options["model"], options["args"]
    if args.use_vllm:
        raise DataError("use_vllm: responses are sampled by transformers' generate here; leave it out")
    if args.disable_dropout:
        switch_off_dropout(model)
    has_adapter = without_adapter(model) is not model
    reference = None if has_adapter or args.beta == 0 else copy.deepcopy(model).requires_grad_(False).eval()
    try:
        with _reference_in_memory(theirs, reference):
            trainer = GroupPolicyTrainer(**options)
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"TRL refuses these settings: {error}") from error
    ids = prompt_ids(trainer.train_dataset[0]["prompt"], trainer.processing_class)
    if args.temperature == 1:
        require_plain_output_layer(trainer, ids)
    _require_padding_ignored(trainer, ids)
    trainer.judge = judge
    return trainer


@contextlib.contextmanager
def _reference_in_memory(module, reference):
    """While open, TRL takes this model where it would load one from the place that the policy came from."""
    plain = module.create_model_from_path
    module.create_model_from_path = lambda *args, **options: reference
    try:
        yield
    finally:
        module.create_model_from_path = plain


class GroupPolicy(TrlManners):
    """What stands before GRPOTrainer among the bases of a trainer.

    A checkpoint holds the responses that have updates still to come, and each pass over the prompts has an order of its
    own, so that a resumed run goes on as the unbroken one. An evaluation samples with the run's seed and leaves the random
    state of the training as it was.
    """

    def evaluation_loop(self, *args, **options):
        """Trainer's loop; the same random numbers at every evaluation."""
        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.args.seed + self.args.process_index)
            return super().evaluation_loop(*args, **options)

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        sampler.__class__ = _in_epochs(type(sampler))
        sampler.epoch = lambda: int(self.state.epoch or 0)
        return sampler

    @property
    def _progress_files(self):
        number = self.args.process_index
        return f"{PROGRESS_FOLDER}/state-{number}.json", f"{PROGRESS_FOLDER}/responses-{number}.safetensors"

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        (folder / PROGRESS_FOLDER).mkdir(parents=True, exist_ok=True)
        state, responses = (folder / name for name in self._progress_files)
        write_json(state, {"step": self._step})
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            parts = enumerate(self._buffered_inputs)
            tensors = {f"{n}.{name}": value for n, part in parts for name, value in part.items() if value is not None}
            save_file(
                {name: torch.as_tensor(value).contiguous().clone() for name, value in tensors.items()}, responses
            )

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state, responses = (Path(checkpoint) / name for name in self._progress_files)
        self._step = (read_json(state) or {"step": 0})["step"]
        if responses.exists():
            parts = [{} for _ in range(self.args.steps_per_generation)]
            for name, value in load_file(responses).items():
                number, _, key = name.partition(".")
                parts[int(number)][key] = value.to(self.args.device)
            self._buffered_inputs = parts


@functools.cache
def _in_epochs(kind):
    """TRL's sampler with an order that follows from seed and epoch, where TRL's goes on from the pass before."""

    class InEpochs(kind):
        def __iter__(self):
            if self.shuffle:
                self.generator.manual_seed(self.seed + self.epoch())
            return super().__iter__()

    return InEpochs


def fitting_prompts(rows, tokenizer, limit, on_long="stop", name="training"):
    """The prompts that leave room for a response, and how many tokens they have in all.

    Args:
        rows: a data set with `prompt`.
        limit: tokens of a prompt; None is no limit.
        on_long: of a longer one: "stop" is an error, "skip" leaves it out.

    Raises:
        DataError: a conversation without a chat template; a prompt that is too long, naming its row; none left.
    """
    kept, total = [], 0
    for row, prompt in enumerate(rows["prompt"]):
        if not isinstance(prompt, str) and tokenizer.chat_template is None:
            raise DataError(
                f"row {row} of the {name} prompts is a conversation, and the tokenizer has no chat template: begin with "
                "a model that was fine-tuned on conversations (recipes/sft.py)"
            )
        length = len(prompt_ids(prompt, tokenizer))
        if limit is None or length <= limit:
            kept.append(row)
            total += length
        elif on_long == "stop":
            raise DataError(
                f"row {row} of the {name} prompts has {length} tokens, and beside a response {limit} can be read: leave "
                "such prompts out with --on_long_prompt skip, or lower --max_completion_length"
            )
    if not kept:
        raise DataError(f"no {name} prompt is left: all {len(rows)} have more than {limit} tokens")
    return (rows if len(kept) == len(rows) else rows.select(kept)), total


def true_answers(rows):
    """Built-in questions with what the microworld answers, as evaluation.instructions.AnswerJudge asks them."""
    facts = [(prompt, read_prompt(prompt)) for prompt in rows["prompt"]]
    return [{"prompt": prompt, "completion": f" {fact.state(fact.answer)}"} for prompt, fact in facts]


def before_training(trainer):
    """Rewards, lengths and judged answers at step 0, sampled with the same random numbers as those at the end."""
    first = next((e for e in trainer.state.log_history if e.get("step") == 0 and "eval_reward" in e), {})
    beginnings = ("eval_reward", "eval_completions/mean_length", "eval_completions/clipped_ratio")
    found = {name: value for name, value in first.items() if name.startswith(beginnings) or name.endswith("_answers")}
    return {"baselines": {"before_training": found}} if found else {}


def _require_padding_ignored(trainer, ids):
    """Refuse a model that gives a row other probabilities with padding before it than without."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    model, was_training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
    ids = (ids * CHECKED_TOKENS)[:CHECKED_TOKENS]
    plain = torch.tensor([ids], device=model.device)
    padded = torch.nn.functional.pad(plain, (PADDING, 0), value=trainer.processing_class.pad_token_id)
    mask = torch.nn.functional.pad(torch.ones_like(plain), (PADDING, 0))
    model.eval()
    with torch.no_grad():
        alone, *_ = trainer._get_per_token_logps_and_entropies(
            model, plain, torch.ones_like(plain), CHECKED_TOKENS - 1
        )
        behind, *_ = trainer._get_per_token_logps_and_entropies(model, padded, mask, CHECKED_TOKENS - 1)
    model.train(was_training)
    if not torch.allclose(alone.float(), behind.float(), atol=TOLERANCE, rtol=TOLERANCE):
        kind = type(without_adapter(model)).__name__
        raise CheckpointError(
            f"{kind} computes other probabilities where padding stands before a prompt, and TRL's GRPOTrainer, which pads "
            "there, gives no position ids: convert GPT-2 or GPT-1 to ours first (hftoolkit convert), or take recipes/ppo.py"
        )
