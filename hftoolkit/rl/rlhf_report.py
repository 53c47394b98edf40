"""What each stage of RLHF has changed: rewards, distance, and who wins against the stage before.

    report.json  everything        report.md  the tables and samples        over_optimisation.png  see rlhf_figure
Shapes: n = prompts, R = longest response.
"""

import math
from typing import NamedTuple

import torch
from transformers import TrainerState

from hftoolkit.rl.actor_critic import last_hidden_state, predicting, token_logprobs
from hftoolkit.rl.checks import stop_tokens
from hftoolkit.rl.completion_texts import are_conversations, completion_texts
from hftoolkit.rl.make_experience import pad_id, uniform_numbers
from hftoolkit.rl.rollout import sample_rollout
from hftoolkit.rl.scoring import call_reward
from hftoolkit.rl.stop_strings import StopStrings

SAMPLING_STREAM = 2**41  # seeds of the report are far from those of training and evaluation
SHOWN_SAMPLES = 6
LEARNED, TRUE = "learned", "true"


class Answers(NamedTuple):
    """What one model answers: texts, rewards by name (n,), KL to the SFT model in nats (n,) or None, lengths, ends.

    A reward that does not apply to an answer, or fails for it, is nan there.
    """

    texts: list
    rewards: dict
    kl: torch.Tensor | None
    lengths: torch.Tensor
    ended: torch.Tensor


@torch.no_grad()
def answer(model, tokenizer, prompts, rewards, args, reference=None, state=None):
    """Sample an answer to each prompt, for every model with the same random numbers, and let it be scored.

    Args:
        model: a causal language model.
        prompts: rows of data with `prompt` and `prompt_ids`, by this model's tokenizer.
        rewards: {LEARNED: function, TRUE: function}; the second may be missing.
        args: PPOConfig: what ends a response, response_length, temperature, rollout_forward_batch_size, seed, and
            on_reward_error.
        reference: the model to which the KL is measured; None where the vocabularies differ.
        state: TrainerState after PPO, which reward functions may ask for; None is that before any training.
    """
    model.eval()
    stops = stop_tokens(args, tokenizer, model.config)
    strings = StopStrings(args.stop_strings, tokenizer) if args.stop_strings else None
    found = sample_rollout(
        model,
        prompts["prompt_ids"][:],
        uniform_numbers(args.seed + SAMPLING_STREAM, len(prompts), args.response_length),
        args,
        stop_token_ids=stops,
        pad_id=pad_id(tokenizer, stops),
        stop_strings=strings,
        generator=torch.Generator().manual_seed(args.seed),
    )
    columns = prompts[:] | {"trainer_state": state or TrainerState()}
    asked = columns.pop("prompt")
    columns.pop("prompt_ids")
    texts = completion_texts(tokenizer, found, asked, strings)
    answers = [[{"role": "assistant", "content": text}] for text in texts] if are_conversations(asked) else texts
    scores = {
        name: _scores(function, asked, answers, found.completion_ids(), columns, args.on_reward_error)
        for name, function in rewards.items()
    }
    kl = None
    if reference is not None:
        kl = _kl_per_response(found, model, reference, args.temperature, args.rollout_forward_batch_size)
    return Answers(texts, scores, kl, found.response_lengths.cpu(), found.ended.cpu())


def _scores(*call):
    """What a reward function gives, (n,) float64; nan where it does not apply."""
    scores, applies = call_reward(*call)
    return scores.double().masked_fill(~applies, torch.nan)


def _kl_per_response(found, model, reference, temperature, size):
    """Log p(response | model) - log p(response | reference), (n,) float64: its mean estimates the KL without bias."""
    totals = []
    for rows in torch.arange(len(found.input_ids)).split(size):
        ids, mask, prompts = found.input_ids[rows], found.attention_mask[rows], found.prompt_lengths[rows]
        places = predicting(mask, prompts)
        logprobs = [
            token_logprobs(
                last_hidden_state(one, ids, mask)[places],
                one.get_output_embeddings(),
                ids[:, 1:][places[:, :-1]],
                temperature,
            ).double()
            for one in (model, reference)
        ]
        table = torch.zeros(places.shape, dtype=torch.float64, device=ids.device)
        table[places] = logprobs[0] - logprobs[1]
        totals.append(table.sum(dim=1).cpu())
    return torch.cat(totals)


def win_rate(scores, others):
    """Share of prompts at which the first has the higher score, equal ones half, and its standard error.

    Prompts at which one of them has no score (nan) do not count; (None, None) where none is left.

    Example:
        win_rate([2, 1, 0, 1], [1, 1, 1, 0]) -> (0.625, 0.239)
    """
    scores, others = (torch.as_tensor(values, dtype=torch.float64) for values in (scores, others))
    both = scores.isfinite() & others.isfinite()
    if not both.any():
        return None, None
    scores, others = scores[both], others[both]
    wins = (scores > others).double() + 0.5 * (scores == others).double()
    error = float(wins.std()) / math.sqrt(len(wins)) if len(wins) > 1 else 0.0
    return float(wins.mean()), error


def compare(stages):
    """Rows of the table: means of each stage over the answers that have a reward, and its wins against the stage before.

    Args:
        stages: {name: Answers}, in order.
    """
    rows, before = [], None
    for name, found in stages.items():
        row = {"stage": name, "prompts": len(found.texts)}
        for kind, scores in found.rewards.items():
            scored = scores[scores.isfinite()]
            row[f"{kind}_reward"] = float(scored.mean()) if len(scored) else None
            row[f"{kind}_scored"] = len(scored)
        row["kl"] = None if found.kl is None else float(found.kl.mean())
        row["length"], row["ended"] = float(found.lengths.double().mean()), float(found.ended.double().mean())
        for kind, scores in found.rewards.items():
            wins = (None, None) if before is None else win_rate(scores, before.rewards[kind])
            row[f"{kind}_win_rate"], row[f"{kind}_win_rate_error"] = wins
        rows.append(row)
        before = found
    return rows


def samples_of(stages, prompts, number=SHOWN_SAMPLES):
    """What every stage answers to the first prompts, with the rewards."""
    return [
        {
            "prompt": prompts["prompt"][row],
            "answers": {
                name: {"text": found.texts[row]}
                | {kind: _number(scores[row]) for kind, scores in found.rewards.items()}
                for name, found in stages.items()
            },
        }
        for row in range(min(number, len(prompts)))
    ]


def _number(score):
    """A score as the report has it; None where there is none."""
    return round(float(score), 4) if score.isfinite() else None


def path_of(history, learned):
    """The evaluations during PPO, in order: step, KL in nats per response, learned and true reward.

    Args:
        history: log_history of the trainer.
        learned: name of the learned reward there; another one, where there is one, is the true reward.
    """
    path, prefix = [], "eval_rewards/"
    for entry in history:
        if "eval_kl" not in entry:
            continue
        rewards = {key.removeprefix(prefix): value for key, value in entry.items() if key.startswith(prefix)}
        point = {"step": entry["step"], "kl": entry["eval_kl"], "learned_reward": rewards.pop(learned)}
        others = list(rewards.values())
        path.append(point | ({"true_reward": others[0]} if others else {}))
    return path


def write_report(report):
    """The report as Markdown."""
    lines = [
        "# SFT, reward model, PPO",
        "",
        f"Answers to {report['stages'][0]['prompts']} held-out prompts, sampled.",
        "",
    ]
    lines += _stage_table(report["stages"])
    if report["reward_model"]:
        told = ", ".join(f"{name} {value:.4g}" for name, value in report["reward_model"].items())
        lines += ["", f"The reward model on held-out preferences: {told}."]
    if report["path"]:
        lines += [
            "",
            "## During PPO",
            "",
            *_path_table(report["path"]),
            "",
            "![Rewards over the KL](over_optimisation.png)",
        ]
    lines += ["", "## Samples", ""]
    for sample in report["samples"]:
        asked = sample["prompt"]
        asked = asked if isinstance(asked, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in asked)
        lines += ["```text", asked.replace("```", "'''"), "```", ""]
        for name, found in sample["answers"].items():
            scores = ", ".join(
                f"{kind} -" if found[kind] is None else f"{kind} {found[kind]:.3g}"
                for kind in (LEARNED, TRUE)
                if kind in found
            )
            lines.append(f"- {name} ({scores}): {' '.join(found['text'].split()) or '(nothing)'}")
        lines.append("")
    return "\n".join(lines)


def _stage_table(rows):
    """Markdown rows of the stages; a win rate with its standard error."""
    kinds = [kind for kind in (LEARNED, TRUE) if f"{kind}_reward" in rows[0]]
    names = [f"{kind} reward" for kind in kinds] + ["KL to SFT", "tokens", "ended"]
    names += [f"wins against the one above, by {kind} reward" for kind in kinds]
    lines = [f"| stage | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for row in rows:
        cells = [_mean_cell(row, kind) for kind in kinds]
        kl = "-" if row["kl"] is None else _two_places(row["kl"])
        cells += [kl, f"{row['length']:.1f}", f"{row['ended']:.2f}"]
        for kind in kinds:
            rate, error = row[f"{kind}_win_rate"], row[f"{kind}_win_rate_error"]
            cells.append("-" if rate is None else f"{rate:.2f} ± {error:.2f}")
        lines.append(f"| {row['stage']} | {' | '.join(cells)} |")
    return lines


def _mean_cell(row, kind):
    """A mean reward; where some answers have none, of how many it is."""
    if row[f"{kind}_reward"] is None:
        return "-"
    some = f" (of {row[f'{kind}_scored']})" if row[f"{kind}_scored"] < row["prompts"] else ""
    return f"{row[f'{kind}_reward']:.3f}{some}"


def _path_table(path):
    kinds = [kind for kind in (LEARNED, TRUE) if f"{kind}_reward" in path[0]]
    lines = [f"| step | KL | {' | '.join(f'{kind} reward' for kind in kinds)} |", "|---" * (2 + len(kinds)) + "|"]
    for point in path:
        cells = " | ".join(f"{point[f'{kind}_reward']:.3f}" for kind in kinds)
        lines.append(f"| {point['step']} | {_two_places(point['kl'])} | {cells} |")
    return lines


def _two_places(value):
    """A number with two decimals; what rounds to nothing has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"
