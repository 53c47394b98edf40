"""The progress of a run, on a terminal or in a log file.

ASCII only, and never a reason to fail: a closed pipe or a terminal without UTF-8 only silences or escapes the text.
"""

import os
import shutil
import sys
import time

from transformers import TrainerCallback

from hftoolkit.training.overview import describe_run, measured_memory

REDRAW_SECONDS = 0.2  # of the status line of a terminal
SILENCE_SECONDS = 30.0  # without a terminal, a line at least this often
HIDDEN = ("total_flos", "step", "epoch", "num_input_tokens_seen")
TIMINGS = ("_runtime", "_per_second")  # Trainer's own are wrong for a resumed run


def say(text, end="\n"):
    """Write to stdout; where nobody reads any more (`| head`), be silent from then on."""
    try:
        try:
            sys.stdout.write(text + end)
        except UnicodeEncodeError:
            sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + end)
        sys.stdout.flush()
    except BrokenPipeError:  # the interpreter flushes stdout once more at exit, which would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a full disk behind stdout, or a closed file
        return


def duration(seconds):
    """Seconds for people: `3:07`, `2:00:05`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def number(value):
    """A number in at most five significant digits; anything else as it is."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class Progress(TrainerCallback):
    """One screen before the first step, then a line per report; on a terminal also a status line in place.

    It takes the place of Trainer's own progress bar, which ends a run with BrokenPipeError when stdout is closed.

    Args:
        shown_numbers: names of what a report shows beside evaluations; None: all. log_history has all of them.
    """

    def __init__(self, trainer, data_summary=None, resumed_from=None, tokens_per_step=None, shown_numbers=None):
        self.trainer, self.data_summary, self.resumed_from = trainer, data_summary, resumed_from
        self.tokens_per_step, self.shown_numbers = tokens_per_step, shown_numbers
        self.shown = trainer.is_world_process_zero()
        self.first_step, self.started, self.last_line, self.evaluated = 0, time.monotonic(), 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.started = state.global_step, time.monotonic()
        self._line(describe_run(self.trainer, state, self.data_summary, self.resumed_from))

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        if state.global_step == self.first_step + 1:
            self._line(f"memory    after one step: {measured_memory(optimizer, args.device)}")
        self._status(f"{self._place(state)}  {self._speed(state)}")

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        self.evaluated += 1
        self._status(f"evaluating, batch {self.evaluated}")

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        shown = {key: value for key, value in (logs or {}).items() if key not in HIDDEN and not key.endswith(TIMINGS)}
        if self.shown_numbers is not None:
            shown = {k: v for k, v in shown.items() if k in self.shown_numbers or k.startswith(("eval_", "train_"))}
        numbers = "  ".join(f"{key} {number(value)}" for key, value in shown.items())
        self._line(f"{self._place(state)}  {numbers}{f'  {self._speed(state)}' if 'loss' in (logs or {}) else ''}")

    def _place(self, state):
        width = len(str(state.max_steps))
        return f"step {state.global_step:>{width}}/{state.max_steps}  epoch {state.epoch or 0:.2f}"

    def _speed(self, state):
        """Steps or tokens per second of this start of the run, and the time left."""
        done, seconds = state.global_step - self.first_step, time.monotonic() - self.started
        if done < 1 or seconds <= 0:
            return ""
        rate, unit = done / seconds, "steps/s"
        left = duration((state.max_steps - state.global_step) / rate)
        if self.tokens_per_step:
            rate, unit = rate * self.tokens_per_step, "tokens/s"
        return f"{rate:,.4g} {unit}  {left} left" if rate < 1000 else f"{rate:,.0f} {unit}  {left} left"

    def _line(self, text):
        if self.shown:
            say(("\r\x1b[K" if self._on_terminal() else "") + text)
            self.last_line = time.monotonic()

    def _status(self, text):
        """Redraw the status line of a terminal; elsewhere a line of its own, when nothing was said for long."""
        silence = time.monotonic() - self.last_line
        if not self.shown or silence < (REDRAW_SECONDS if self._on_terminal() else SILENCE_SECONDS):
            return
        if self._on_terminal():
            say(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="")
            self.last_line = time.monotonic()
        else:
            self._line(text)

    def _on_terminal(self):
        return not self.trainer.args.disable_tqdm and not sys.stdout.closed and sys.stdout.isatty()
