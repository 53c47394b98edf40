"""Several runs under one folder, such as every task with several seeds.

Each part is a run of its own in a subfolder. Interrupted, the whole goes on with the same command: finished parts are
recognised and not repeated, and the one that was cut off resumes from its checkpoint.
"""

import contextlib
import copy
from pathlib import Path

from hftoolkit.training.disk import explained, read_json, require_writable
from hftoolkit.training.results import first_record
from hftoolkit.training.run_folder import RECORD_FILE, RunRecord, lock


@contextlib.contextmanager
def series(training_args, arguments):
    """Hold output_dir while open; its run.json tells of the whole: what was given, and whether it is done.

    Args:
        training_args: TrainingArguments, as parse_arguments made them.
        arguments: the other dataclasses, for the record.

    Raises:
        RunFolderError: a living process uses the folder.
        MachineError: the folder cannot be written.
    """
    if training_args.process_index != 0:
        yield
        return
    folder = Path(training_args.output_dir)
    require_writable(folder)
    with explained(folder), lock(folder):
        record = RunRecord(folder, **first_record(training_args, arguments, None))
        record.write()
        try:
            yield
        except BaseException as error:
            record.write_end(error)
            raise
        record.write(status="done", exit_code=0)


def part_arguments(training_args, name, **changes):
    """TrainingArguments for one part.

    Args:
        name: its subfolder, such as "sst2/seed-1"; with push_to_hub also the end of its repository's name.
        changes: what is different from the whole, such as seed=1; noted in the part's record as given.
    """
    part, folder = copy.copy(training_args), Path(training_args.output_dir)
    part.output_dir = str(folder / name)
    part.hub_model_id = f"{training_args.hub_model_id or folder.resolve().name}-{name.replace('/', '-')}"
    for key, value in changes.items():
        setattr(part, key, value)
    given = vars(training_args).get("given_arguments")
    if given is not None:
        part.given_arguments = given | changes
    return part


def finished_results(training_args, results_file="all_results.json"):
    """The results of a part that is finished, else None."""
    folder = Path(training_args.output_dir)
    if (read_json(folder / RECORD_FILE) or {}).get("status") != "done":
        return None
    return read_json(folder / results_file)
