"""What a run of PPO starts from and what it reports at its end, beside the policy it started from."""

from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from hftoolkit.data.labelled import fingerprint
from hftoolkit.errors import DataError
from hftoolkit.rl.evaluation import evaluate_prompts, evaluate_reference
from hftoolkit.training.disk import write_json

SAMPLES_FILE = "samples.json"
SHOWN = (  # on the screen; log_history has all
    "objective/scores",
    "objective/kl",
    "policy/clipfrac_avg",
    "val/explained_variance",
    "completions/mean_length",
    "completions/left_out",
)


def value_model_for(name, rewards, policy):
    """The value model that a recipe's option names: None for a shared trunk, the first reward model's copy, or another.

    Raises:
        DataError: no reward is a model; the model reads another vocabulary than the policy.
    """
    if name == "shared":
        return None
    if name == "reward":
        models = [reward.model for reward in rewards if hasattr(reward, "model")]
        if not models:
            raise DataError("value: reward begins as a reward model, and none of the rewards is one: take shared")
        name = models[0].name_or_path
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)
    sizes = [found.get_input_embeddings().num_embeddings for found in (model, policy)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"the value model {name} reads a vocabulary of {sizes[0]} tokens, and the policy one of {sizes[1]}: a value "
            "function reads the policy's tokens; train the reward model from the same base, or take value: shared"
        )
    return model


def language_model_rows(dataset, tokenizer, length):
    """Pretraining text for ptx_coef: documents joined by the end token and cut into rows of `length` tokens.

    A tokenizer without an end token joins them as they are.
    """
    from hftoolkit.arguments import DataArguments
    from hftoolkit.data.text import load_documents

    documents = load_documents(DataArguments(dataset=dataset, builtin_documents=2000))["train"]
    ids, end = [], [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for text in documents["text"]:
        ids += tokenizer(text)["input_ids"] + end
    rows = [ids[begin : begin + length] for begin in range(0, len(ids) - length + 1, length)]
    if not rows:
        raise DataError(
            f"ptx_dataset {dataset} holds {len(ids)} tokens, less than one row of {length}: give more text, or set a smaller "
            "ptx_max_length"
        )
    return Dataset.from_dict({"input_ids": rows})


def describe_prompts(name, trainer):
    """The summary of the data for the record: name, fingerprint, prompts and their tokens by split."""
    splits = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    counts = {
        split: {"prompts": len(data), "tokens": sum(map(len, data["prompt_ids"]))}
        for split, data in splits.items()
        if data is not None
    }
    return {"name": name, "fingerprint": fingerprint(trainer.train_dataset.select_columns(["prompt_ids"]))} | counts


def evaluate_policy(trainer):
    """Results beside the evaluation: what the reference reaches on the same prompts, and samples of both.

    The reference is evaluated with the same random numbers; its responses and the policy's to the first prompts go to
    samples.json.
    """
    if trainer.eval_dataset is None:
        return {}
    if trainer.samples_step != trainer.state.global_step:  # the last evaluation was in an earlier start of the run
        evaluate_prompts(trainer, trainer.eval_dataset)
    after = trainer.samples
    before = evaluate_reference(trainer, trainer.eval_dataset)
    if trainer.args.process_index == 0:
        pairs = zip(trainer.samples, after, strict=True)
        rows = [
            {"prompt": old["prompt"], "before": old["completion"], "before_reward": old["reward"]}
            | {"after": new["completion"], "after_reward": new["reward"]}
            for old, new in pairs
        ]
        write_json(f"{trainer.args.output_dir}/{SAMPLES_FILE}", rows)
    found = {f"eval_{name}": value for name, value in before.items()}
    stopped = {"stopped_by": trainer.stopped_by} if trainer.stopped_by else {}
    return stopped | {"baselines": {"before PPO": found}}
