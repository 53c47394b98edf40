"""What every recipe shares: resume, train, evaluate, save, and leave a record that can be checked.

    return run_training(trainer, card="gpt", arguments=(model_args, data_args), data_summary=summary)

A run can be interrupted at any moment and started again with the same command: it ends with the same numbers. Its
folder holds the model with its code and tokenizer, README.md (model card), all_results.json, run.json, curves.png,
and checkpoint-<step> folders, each sealed with checksums.
"""

import contextlib
import shlex
import sys
import time
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from hftoolkit.errors import DataError, HubError, UserError
from hftoolkit.plots import plot_curves
from hftoolkit.training import provenance
from hftoolkit.training.adaptation import exported
from hftoolkit.training.callbacks import FiniteCheck, Interruption, require_finite_weights
from hftoolkit.training.checkpoints import finish_interrupted_saves, list_checkpoints, newest_whole, require_same_model
from hftoolkit.training.disk import explained, read_json, require_space, require_writable, write_json
from hftoolkit.training.overview import memory_estimate
from hftoolkit.training.progress import Progress, say
from hftoolkit.training.results import attempt, baseline_table, card_facts, first_record, tidy
from hftoolkit.training.resuming import Resumption
from hftoolkit.training.run_folder import RECORD_FILE, RunFolderError, RunRecord, lock
from hftoolkit.training.saving import SealedSaves, exported_config, save_final_model

RESULTS_FILE = "all_results.json"
TIMINGS = ("_runtime", "_per_second")  # of the machine, not of the model: run.json has them


def run_training(
    trainer, *, card=None, arguments=(), data_summary=None, extra_metrics=None, tokens_per_step=None, max_spikes=None,
    shown_numbers=None,
):  # fmt: skip
    """Train to the end, from the newest whole checkpoint if there is one, then evaluate, save and publish.

    Works with any transformers.Trainer. In a distributed run every process calls it; the main one writes and prints.

    Args:
        card: name of the template of the model card; None writes no card.
        arguments: the dataclasses beside trainer.args, for the record.
        data_summary: name, fingerprint, and one dictionary of counts per split, such as
            `{"name": "builtin", "fingerprint": "1f3a", "train": {"documents": 900, "tokens": 81000}}`.
        extra_metrics: called with the trainer after the evaluation, in every process; returns more results, and under
            the key "baselines" what simpler models reach: a loss, or numbers by the names of the results,
            `{"unigram_loss": 5.1, "majority": {"eval_accuracy": 0.6}}`.
        tokens_per_step: tokens in one update, of all processes; without it, and without Trainer's own counting
            (include_num_input_tokens_seen), the speed is in examples per second.
        shown_numbers: names of the numbers that a report on the screen shows beside evaluations; None: all.
        max_spikes: jumps of the gradient norm that are only reported; at the next one the run stops. None: no limit.

    Returns:
        The content of all_results.json; of the earlier run where the folder holds the same run, finished.

    Raises:
        RunFolderError: the folder is in use, or holds another run.
        DataError: no training data, or nothing to learn in them.
        DivergedError: a loss, a gradient or a weight is not finite, or a spike too many.
        CheckpointError: no whole checkpoint, or that of another model.
        MachineError: the folder cannot be written, or the disk is full.
        HubError: the push failed; the run is done.
        RunInterruptedError: SIGTERM or Ctrl-C; a checkpoint is saved.
    """
    run = _Run(trainer, card, arguments, data_summary, tokens_per_step, max_spikes, shown_numbers)
    results = on_main_process(trainer, run.earlier_results)
    if results is not None:
        return results
    with contextlib.ExitStack() as until_the_end:
        try:
            run.checkpoint = on_main_process(trainer, lambda: run.begin(until_the_end))
            run.train(until_the_end)
            results = run.finish(extra_metrics)
        except BaseException as error:
            if run.record is not None:
                run.record.write_end(error)
            raise
    if run.push_wanted:
        on_main_process(trainer, run.push)
    return results


def on_main_process(trainer, function):
    """Call a function in the main process only; its result, or its UserError, reaches every process."""
    outcome = [None, None]
    if trainer.is_world_process_zero():
        try:
            outcome = [function(), None]
        except UserError as error:
            outcome = [None, error]
    if trainer.args.world_size > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class _Run(TrainerCallback):
    """The steps of run_training and what they share; as a callback it renews the record at every checkpoint."""

    def __init__(self, trainer, card, arguments, data_summary, tokens_per_step, max_spikes, shown_numbers):
        self.trainer, self.folder = trainer, Path(trainer.args.output_dir)
        self.card, self.arguments, self.data_summary, self.shown_numbers = card, arguments, data_summary, shown_numbers
        self.tokens_per_step, self.push_wanted = tokens_per_step, trainer.args.push_to_hub
        self.record, self.checkpoint, self.finite = None, None, FiniteCheck(trainer, max_spikes)

    def earlier_results(self):
        """The results of this very run where it is finished; None where something is left to do."""
        earlier, args = read_json(self.folder / RECORD_FILE) or {}, self.trainer.args
        if changed := provenance.changed_arguments(earlier.get("given"), args, self.arguments):
            listed = "; ".join(f"{key} was {old!r} and is {new!r}" for key, old, new in changed)
            raise RunFolderError(f"{self.folder} holds a run with other arguments ({listed}): choose another one")
        if earlier.get("status") != "done":
            return None
        say(f"already done: {self.folder}")
        return read_json(self.folder / RESULTS_FILE) or {}

    def begin(self, until_the_end):
        """Take the folder, write the first record, and return the checkpoint to go on from, or None."""
        dataset = self.trainer.train_dataset
        if dataset is None or (hasattr(dataset, "__len__") and len(dataset) == 0):
            raise DataError("the training data are empty: there is not a single row to train on")
        require_writable(self.folder)
        with explained(self.folder):
            until_the_end.enter_context(lock(self.folder))
            if list_checkpoints(self.folder) and not (self.folder / RECORD_FILE).exists():
                raise RunFolderError(f"{self.folder} holds checkpoints of another program: choose another output_dir")
            require_finite_weights(self.trainer.model, "before training: the model to start from is damaged")
            finish_interrupted_saves(self.folder)
            weights, _, states = memory_estimate(self.trainer.model)
            require_space(self.folder, weights + (2 * weights if states is None else states))
            self.record = RunRecord(self.folder, **first_record(self.trainer.args, self.arguments, self.data_summary))
            checkpoint = newest_whole(self.folder)
            if checkpoint is not None:
                require_same_model(checkpoint, exported(self.trainer.model))
            self.record.write()
        return checkpoint

    def train(self, until_the_end):
        """Train to the last step under watch; at the end of the run the trainer is as it was before."""
        trainer, args = self.trainer, self.trainer.args
        resumption = Resumption(trainer, self.checkpoint)
        interruption = until_the_end.enter_context(Interruption(trainer))
        until_the_end.callback(vars(args).update, dict(vars(args)))
        args.logging_nan_inf_filter = False  # it reports the mean of earlier losses in place of NaN
        args.push_to_hub = False  # Trainer would push in the middle, its pickled arguments too
        args.dataloader_pin_memory &= args.device.type != "cpu"  # torch warns of it where there is nothing to pin for
        for standard in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            trainer.remove_callback(standard)
        progress = Progress(trainer, self.data_summary, self.checkpoint, self.tokens_per_step, self.shown_numbers)
        for callback in (self.finite, resumption, self, interruption, progress):
            trainer.add_callback(callback)
            until_the_end.callback(trainer.remove_callback, callback)
        start = None if self.checkpoint is None else str(self.checkpoint)
        with SealedSaves(trainer, resumption).installed(), self.finite.watching(), resumption.installed():
            try:
                self.outcome = trainer.train(resume_from_checkpoint=start)
            except ValueError as error:
                if "does not contain any data" in str(error):  # Accelerate, of a stream that gives nothing
                    raise DataError("the training data are empty: the stream ended before its first row") from error
                raise

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.first_tokens = state.global_step, state.num_input_tokens_seen
        self.train_started = time.monotonic()

    def on_save(self, args, state, control, **kwargs):
        if self.record is not None:
            with explained(self.folder):
                self.record.write(steps=state.global_step)

    def finish(self, extra_metrics):
        """Save the model, evaluate it, and write results, picture, card and record."""
        trainer, state = self.trainer, self.trainer.state
        seconds = time.monotonic() - self.train_started
        self.finite.require_sound_end()
        save_final_model(trainer)
        results = {"steps": state.global_step, "epoch": state.epoch, "train_loss": self.outcome.training_loss}
        results |= self._evaluate()
        self.finite.require_finite_reports()
        with exported_config(trainer.model):
            results |= (extra_metrics(trainer) or {}) if extra_metrics else {}
            speed = self._speed(seconds)
            return on_main_process(trainer, lambda: self._write_results(results, speed))

    def _evaluate(self):
        """The evaluation at the last step; done again only where none was due there or another model was chosen."""
        state, args = self.trainer.state, self.trainer.args
        if self.trainer.eval_dataset is None:
            return {}
        entries = [entry for entry in state.log_history if entry.get("step") == state.global_step]
        found = {key: value for entry in entries for key, value in entry.items() if key.startswith("eval_")}
        if not found or args.load_best_model_at_end:
            found = self.trainer.evaluate()
        return {key: value for key, value in found.items() if key != "epoch" and not key.endswith(TIMINGS)}

    def _speed(self, seconds):
        """Tokens or examples per second of this start of the run, and what the model has seen in all."""
        state, args = self.trainer.state, self.trainer.args
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        each, unit = (self.tokens_per_step, "tokens") if self.tokens_per_step else (rows, "examples")
        seen, before = state.global_step * each, self.first_step * each
        if state.num_input_tokens_seen:
            seen, before, unit = state.num_input_tokens_seen, self.first_tokens, "tokens"
        speed = {f"{unit}_per_second": round((seen - before) / seconds, 1)} if seen > before else {}
        return speed | {f"{unit}_seen": round(seen)}

    def _write_results(self, results, speed):
        """Write everything that is not the model; run.json says `done` last."""
        results = tidy(results)
        state, folder = self.trainer.state, self.folder
        with explained(folder):
            write_json(folder / RESULTS_FILE, results)
            table = baseline_table(results.get("baselines", {}))
            losses = {name: found.get("eval_loss", found.get("eval_reward")) for name, found in table.items()}
            picture = {"baselines": losses, "title": folder.resolve().name}
            attempt("curves.png", plot_curves, state.log_history, folder / "curves.png", **picture)
            self.record.facts |= {"steps": state.global_step, "spikes": self.finite.spikes, **speed}
            self.record.write()  # the card quotes its seconds
            if self.card is not None:
                attempt("the model card", self._write_card, results)
            self.record.write(status="done", exit_code=0)
        say(f"done: {folder}")
        return results

    def _write_card(self, results):
        from hftoolkit.cards import write_card

        facts = card_facts(self.trainer, self.arguments, self.record.facts, results)
        write_card(self.folder, self.card, facts | {"architecture": self.card})

    def push(self):
        """Publish the finished folder; a failure leaves the run done and says how to repeat it."""
        from hftoolkit.publish import publish_folder

        args = self.trainer.args
        repository = self.trainer.hub_model_id or args.hub_model_id or self.folder.resolve().name
        wanted = {"private": args.hub_private_repo, "revision": args.hub_revision}
        try:
            say(f"published: {publish_folder(self.folder, repository, **wanted)}")
        except UserError as error:
            call = f"publish_folder({str(self.folder)!r}, {repository!r}, private={wanted['private']})"
            again = shlex.join([sys.executable, "-c", f"from hftoolkit.publish import publish_folder; {call}"])
            raise HubError(f"{error}. The run is done and safe in {self.folder}; publish it with: {again}") from error
