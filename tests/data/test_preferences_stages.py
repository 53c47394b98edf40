"""One row of preferences in all stages of RLHF: SFT, the reward model and PPO see the same prompt."""

import pytest

from hftoolkit.data.instructions_rows import instruction_rows
from hftoolkit.data.preferences_rows import read_preference
from hftoolkit.data.prompt_sources import prompt_rows
from hftoolkit.data.prompts import as_dataset, tokenize_prompts
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.tokenization.chat import CHAT_TEMPLATE

USER, SYSTEM = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}
YES, NO = [{"role": "assistant", "content": "Yes."}], [{"role": "assistant", "content": "No."}]
HUMAN = {"from": "human", "value": "Hi"}
SHAREGPT = {"chosen": {"from": "gpt", "value": "Yes."}, "rejected": {"from": "gpt", "value": "No."}}
TEXTS = {"chosen": "Yes.", "rejected": "No."}
ROWS = {
    "HH-RLHF": {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
    "texts": {"prompt": "Hi"} | TEXTS,
    "messages": {"prompt": [USER], "chosen": YES, "rejected": NO},
    "messages without a prompt": {"chosen": [USER, *YES], "rejected": [USER, *NO]},
    "a text and messages": {"prompt": "Hi", "chosen": YES, "rejected": NO},
    "UltraFeedback": {"prompt": "Hi", "chosen": [USER, *YES], "rejected": [USER, *NO], "messages": [USER, *YES]},
    "messages and texts": {"prompt": [SYSTEM, USER]} | TEXTS,
    "another system message": {"prompt": [{"role": "developer", "content": "Be brief."}, USER]} | TEXTS,
    "several turns": {"prompt": [USER, *NO, USER], "chosen": YES, "rejected": NO},
    "LLaMA-Factory": {"conversations": [HUMAN]} | SHAREGPT,
    "LLaMA-Factory with texts": {"conversations": [HUMAN]} | TEXTS,
    "LLaMA-Factory with a system message": {"conversations": [HUMAN], "system": "Be brief."} | SHAREGPT,
    "LLaMA-Factory after Alpaca": {"instruction": "Hi", "input": "there"} | TEXTS,
    "a ranking": {"prompt": "Hi", "completions": ["No.", "Yes."], "ranks": [2, 1]},
    "a ranking of messages": {"prompt": [USER], "completions": [NO, YES], "scores": [0, 3]},
    "a ranking of texts after messages": {"prompt": [USER], "completions": ["No.", "Yes."], "scores": [0, 3]},
}


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer("byte", [])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_all_stages_read_the_same_prompt(row, tokenizer):
    (demonstration,) = instruction_rows(row, "x")
    if "messages" in demonstration:
        *before, answer = demonstration["messages"]
        asked = tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
        answer = answer["content"]
    else:
        asked, answer = demonstration["prompt"], demonstration["completion"]
    preference = read_preference(row, "x", tokenizer)
    best = preference["completions"][preference["scores"].index(max(preference["scores"]))]
    assert (preference["prompt"], best) == (asked, answer) and answer.strip() == "Yes."
    prompts = tokenize_prompts(as_dataset(prompt_rows(row, "x")), tokenizer, max_prompt_length=999)
    assert tokenizer.decode(prompts["prompt_ids"][0]) == asked


def test_turns_of_tools_are_no_demonstrations(tokenizer):
    row = {"prompt": [USER, *NO, {"role": "tool", "content": "3"}], "chosen": YES, "rejected": NO}
    assert "tool\n3" in read_preference(row, "x", tokenizer)["prompt"] and prompt_rows(row, "x")
    with pytest.raises(DataError, match="x, message 2: unknown role 'tool'"):
        instruction_rows(row, "x")


def test_answers_of_different_conversations_are_refused():
    row = {"prompt": None, "completions": [[USER, *NO], [SYSTEM, USER, *YES]], "ranks": [1, 2]}
    with pytest.raises(DataError, match="x: .*answer different conversations"):
        read_preference(row, "x")
    with pytest.raises(DataError, match="the same text, 'Yes.'"):
        read_preference({"prompt": [USER], "chosen": "Yes.", "rejected": " Yes."}, "x")
