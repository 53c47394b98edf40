"""What a run of a reward model starts from and leaves: demonstrations, and the report on held-out preferences."""

from pathlib import Path

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.instructions import load_instructions
from hftoolkit.data.preferences_batches import chosen_answers, demonstrations
from hftoolkit.evaluation.reward import padded, reward_report
from hftoolkit.evaluation.reward_figure import draw_calibration
from hftoolkit.training.results import attempt

CHOSEN, NONE = "chosen", "none"
PICTURE = "calibration.png"


def load_demonstrations(source, number, tokens, tokenizer, max_length):
    """Answers that get the mean reward 0, as rows of preferences_tokens.answer_tokens; None where there are none.

    Args:
        source: "chosen", the best answers of the training data; "none"; or a data set of prompts with completions.
        number: how many are read, the first ones.
        tokens: training data, of tokenize_preferences.

    Raises:
        DataError: the data set is missing or damaged, or holds whole conversations.
    """
    if source == NONE:
        return None
    if source == CHOSEN:
        return chosen_answers(tokens, number)
    found = load_instructions(ExampleArguments(dataset=source), validation_fraction=0.0)["train"]
    return demonstrations(found, tokenizer, max_length, number)


def evaluate_rewards(trainer):
    """extra_metrics of a run: the report of evaluation.reward on the evaluation data, and the calibration's picture."""
    found = {}
    if trainer.shift is not None:
        place = "the head's bias" if trainer.bias_in_head else "config.reward_bias; a plain class does not add it"
        found = {"reward_shift": trainer.shift, "reward_shift_is_in": place}
    if trainer.eval_dataset is None:
        return found
    output = trainer.predict(trainer.eval_dataset)
    characters = padded(trainer.eval_dataset["characters"], output.label_ids.shape[1])
    found |= reward_report(output.predictions, output.label_ids, characters)
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        options = {"error": found["eval_calibration_error"], "title": folder.resolve().name}
        attempt(PICTURE, draw_calibration, found["details"]["calibration"], folder / PICTURE, **options)
    return found
