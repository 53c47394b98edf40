"""The main job from beginning to end, offline, on built-in data: `make quickstart`, or `hftoolkit quickstart`.

Each stage runs recipes through their `main`, as a user would from the command line, and returns rows of a table of what
was measured. A stage takes one to three minutes on two CPU cores, the last one eight.
"""

import json
import os
import sys
import time
from pathlib import Path

from hftoolkit.errors import UserError

from .lineage import run_classifiers, run_elmo, run_language_models, run_seq2seq, run_words
from .pretraining import run_bert, run_gpt, run_t5
from .steps import say
from .tasks import run_in_context, run_rlhf, run_tasks

STAGES = {
    "words": run_words,
    "classifiers": run_classifiers,
    "language_models": run_language_models,
    "elmo": run_elmo,
    "seq2seq": run_seq2seq,
    "gpt": run_gpt,
    "bert": run_bert,
    "tasks": run_tasks,
    "in_context": run_in_context,
    "t5": run_t5,
    "rlhf": run_rlhf,
}


def main(stage="all", output_dir=None):
    """Run one stage or all; print the table of what was measured; return the rows.

    Raises:
        UserError: an unknown stage, or an output folder that holds something already.
    """
    names = list(STAGES) if stage == "all" else [stage]
    if names[0] not in STAGES:
        raise UserError(f"no stage {stage!r}; the stages are all, {', '.join(STAGES)}")
    folder = _new_folder(output_dir)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows, paths, start = [], {}, time.monotonic()
    for name in names:
        began = time.monotonic()
        new_rows, new_paths = STAGES[name](folder)
        rows += [*new_rows, ("", f"stage {name}, seconds", time.monotonic() - began)]
        paths |= new_paths
    _show(rows, paths | {"run": str(folder)}, time.monotonic() - start)
    (folder / "quickstart.json").write_text(json.dumps([{"what": what, "value": value} for _, what, value in rows]))
    return rows


def _new_folder(output_dir):
    """The folder of this quickstart: the one asked for, or the first free runs/quickstart-N."""
    if output_dir is not None:
        folder = Path(output_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not empty; choose another --output_dir")
    else:
        folder = next(f for n in range(1, 10**6) if not (f := Path("runs") / f"quickstart-{n}").exists())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _show(rows, paths, seconds):
    say("What was measured")
    for what, measure, value in rows:
        sys.stdout.write(f"{what:9}{measure:62}{value:>10.4g}\n")
    sys.stdout.write(f"\nin {seconds:.0f} seconds\n")
    for name, path in paths.items():
        sys.stdout.write(f"{name:12}{path}\n")
