"""What PPO reports: the parts of its losses by the names TRL had, and the rollouts between two reports in one."""

PARTS = {  # per token of a minibatch, means over the updates since the last report; TRL's names where it had them
    "policy_loss": "loss/policy_avg",
    "value_loss": "loss/value_avg",
    "ptx_loss": "loss/ptx_avg",
    "approximate_kl": "policy/approxkl_avg",
    "clipped": "policy/clipfrac_avg",
    "value_clipped": "val/clipfrac_avg",
    "ratio": "val/ratio",
    "ratio_variance": "val/ratio_var",  # about 1, which is the mean under the policy that sampled
}
LAST, LARGEST = ("episode",), ("completions/max_length",)


def together(reports):
    """One report of several rollouts: means, but the last `episode` and the largest `completions/max_length`.

    A count that a rollout does not name, such as completions/left_out, is 0 in it.
    """
    if len(reports) == 1:
        return dict(reports[0])
    names = dict.fromkeys(name for report in reports for name in report)
    found = {name: sum(report.get(name, 0) for report in reports) / len(reports) for name in names}
    found |= {name: max(report[name] for report in reports) for name in LARGEST if name in found}
    return found | {name: reports[-1][name] for name in LAST if name in found}
