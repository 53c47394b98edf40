"""Saving a Trainer's checkpoints and its final model so that nothing is ever half-written.

Trainer writes a checkpoint file by file under its final name, leaves a pickle of its arguments (with tokens in clear)
in it, and deletes older ones itself; killed in between, it leaves a folder that the next start would take for whole.
"""

import contextlib
import inspect
import logging
import os
import shutil
from pathlib import Path

from transformers.utils import logging as transformers_logging

from hftoolkit.errors import MachineError
from hftoolkit.training.adaptation import exported, save_merged, without_adapter
from hftoolkit.training.callbacks import require_finite_weights
from hftoolkit.training.checkpoints import FORMAT, MANIFEST, STAGING, publish, rotate, seal
from hftoolkit.training.disk import explained, flush_to_disk, write_json
from hftoolkit.training.run_folder import LOCK_FILE

logger = logging.getLogger(__name__)

PICKLED_ARGUMENTS = "training_args.bin"
TRAINER_STATE = "trainer_state.json"


@contextlib.contextmanager
def exported_config(model):
    """While open, config.use_cache is the class's own default; Trainer sets it to False, which would slow generate."""
    config = getattr(model, "config", None)
    if config is None or "use_cache" not in vars(config):
        yield
        return
    during_training = config.use_cache
    parameter = inspect.signature(type(config).__init__).parameters.get("use_cache")
    if parameter is None:  # the architecture knows no cache: Trainer has added the key
        del config.use_cache
    else:
        config.use_cache = parameter.default
    try:
        yield
    finally:
        config.use_cache = during_training


@contextlib.contextmanager
def no_progress_bars():
    """While open, transformers draws no bar for each file it writes."""
    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()


class SealedSaves:
    """Makes one trainer save every checkpoint under a temporary name, seal it, and rename it into place.

    While `installed`, `_save_checkpoint` of the trainer's own object (not of its class) is wrapped: the plain one is
    led into the folder .saving, where it finds no older checkpoints to delete. Rotation comes after the renaming, so
    the last good checkpoint never goes before the new one is whole.
    """

    def __init__(self, trainer, resumption):
        self.trainer, self.folder, self.resumption = trainer, Path(trainer.args.output_dir), resumption
        self.plain_save = trainer._save_checkpoint

    @contextlib.contextmanager
    def installed(self):
        """Wrap the trainer's saving while open."""
        self.trainer._save_checkpoint = self.save
        try:
            yield self
        finally:
            del self.trainer._save_checkpoint

    def save(self, model, trial=None):
        """Save one checkpoint; after a full disk try once more without what the first attempt left.

        Raises:
            MachineError: the disk is full or the folder is gone; older checkpoints are as they were.
            DivergedError: a weight is not finite, so nothing is written.
        """
        args = self.trainer.args
        step = self.trainer.state.global_step
        require_finite_weights(self.trainer.model, f"at step {step}, nothing is saved", self.trainer)
        if args.process_index == 0 and not (self.folder / LOCK_FILE).exists():
            raise MachineError(f"the run folder {self.folder} was deleted or replaced while the run was using it")
        try:
            with explained(self.folder):
                self._save_sealed(model, trial)
        except MachineError as error:
            shutil.rmtree(self.folder / STAGING, ignore_errors=True)
            if args.world_size > 1 or not self.folder.is_dir():
                raise
            logger.warning("saving failed and is tried once more: %s", error)
            try:
                with explained(self.folder):
                    self._save_sealed(model, trial)
            finally:
                shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()

    def _save_sealed(self, model, trial):
        trainer, staging = self.trainer, self.folder / STAGING
        trainer._get_output_dir = lambda trial=None: str(staging)
        try:
            with exported_config(trainer.model), no_progress_bars():
                self.plain_save(model, trial)
        finally:
            del trainer._get_output_dir
        best = trainer.state.best_model_checkpoint
        if best is not None and Path(best).parent == staging:
            trainer.state.best_model_checkpoint = best = str(self.folder / Path(best).name)
        memory = self.resumption.memory()
        trainer.accelerator.wait_for_everyone()  # every process has written its random state
        if trainer.args.should_save:
            staged = staging / f"checkpoint-{trainer.state.global_step}"
            (staged / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            trainer.state.save_to_json(staged / TRAINER_STATE)
            facts = {"format": FORMAT, "step": trainer.state.global_step, "processes": trainer.args.world_size}
            write_json(staged / MANIFEST, facts | memory | {"arguments": trainer.args.to_dict()})
            seal(staged)
            publish(staged, self.folder)
            rotate(self.folder, trainer.args.save_total_limit, best)


def save_final_model(trainer):
    """Put model, configuration, code for the Hub and tokenizer into the run folder, each file whole or not at all.

    Every process calls it: sharded weights are gathered. Low-rank updates (PEFT) are merged, and kept in `adapter/`;
    under FSDP only the updates are saved, because no process holds the weights they belong to.
    """
    folder = Path(trainer.args.output_dir)
    staged = folder / STAGING / "model"
    if trainer.is_fsdp_enabled:  # checkpoints may be sharded; the model for others is one state dict
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    with explained(folder), exported_config(trainer.model), no_progress_bars():
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
        if not trainer.args.should_save:
            return
        (staged / PICKLED_ARGUMENTS).unlink(missing_ok=True)
        model = exported(trainer.model)
        if without_adapter(model) is not model and not trainer.is_fsdp_enabled:
            save_merged(model, staged)
        for path in staged.rglob("*"):
            flush_to_disk(path)
        for path in sorted(staged.iterdir()):
            if path.is_dir():
                shutil.rmtree(folder / path.name, ignore_errors=True)
            os.replace(path, folder / path.name)
        shutil.rmtree(folder / STAGING)
        flush_to_disk(folder)
