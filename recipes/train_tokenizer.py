"""Train a tokenizer: GPT-2's or GPT-1's BPE, WordPiece, Unigram, words, characters or bytes.

    python recipes/train_tokenizer.py --config tokenizer/byte_bpe --output_dir runs/byte_bpe
    python recipes/train_tokenizer.py --kind unigram --vocab_size 32100 --dataset corpus.txt --output_dir runs/unigram

Papers: Sennrich et al. 2016, https://aclanthology.org/P16-1162; Kudo 2018, https://aclanthology.org/P18-1007.
Input: one document per row (--dataset builtin, a file or folder, or a Hub id); only the training split is learnt from.
Output: a folder that AutoTokenizer loads, and tokenizer_report.json with what was measured on held-out documents.
"""

from dataclasses import asdict, dataclass, field
from typing import Literal

from hftoolkit.arguments import DataArguments, parse_arguments
from hftoolkit.errors import MachineError, one_line_errors

KINDS = Literal["byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word", "character", "byte"]


@dataclass
class TaskArguments:
    output_dir: str = field(metadata={"help": "folder to write; absent or empty", "folder": True})
    kind: KINDS = field(default="byte_bpe", metadata={"help": "how text is cut"})
    vocab_size: int = field(default=8192, metadata={"help": "tokens in all, special ones included", "min": 1})
    min_frequency: int | None = field(default=None, metadata={"help": "leave out what is rarer", "min": 1})
    lowercase: bool | None = field(default=None, metadata={"help": "none is the habit of the kind"})
    max_length: int | None = field(default=None, metadata={"help": "tokens at most (model_max_length)", "min": 2})
    chat_template: bool = field(default=False, metadata={"help": "add a template for conversations"})
    num_sentinels: int | None = field(default=None, metadata={"help": "unigram's <extra_id_i>; none is 100", "min": 0})

    def __post_init__(self):
        if self.lowercase and self.kind in ("byte_bpe", "character", "byte"):
            raise ValueError(f"lowercase: {self.kind} keeps every character; choose another kind")
        if self.num_sentinels is not None and self.kind != "unigram":
            raise ValueError(f"num_sentinels: only unigram has sentinels, not {self.kind}")
        if self.min_frequency is not None and self.kind == "byte":
            raise ValueError("min_frequency: the 256 bytes are all kept")


def main(data_args, task_args):
    import json
    import tempfile
    import time
    from itertools import islice
    from pathlib import Path

    from hftoolkit.data.text import fingerprint, load_documents
    from hftoolkit.tokenization import tokenizer_statistics, train_tokenizer, visible_pieces

    folder = Path(task_args.output_dir).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MachineError(f"{folder} is not an empty folder; give another --output_dir")

    # 1. Data.
    documents = load_documents(data_args)
    held_out = "validation" if "validation" in documents else "train"

    # 2. Tokenizer.
    start, options = time.process_time(), asdict(task_args)
    tokenizer = train_tokenizer(
        task_args.kind,
        (row["text"] for row in documents["train"]),
        task_args.vocab_size,
        model_max_length=task_args.max_length,
        **{key: options[key] for key in ("min_frequency", "lowercase", "chat_template", "num_sentinels")},
    )
    cpu_seconds = round(time.process_time() - start, 2)

    # 3. Measure on documents it has not seen, and show.
    texts = [row["text"] for row in islice(documents[held_out], 1000)]
    local = Path(data_args.dataset).expanduser().exists()
    report = {
        "arguments": {key: value for key, value in options.items() if key != "output_dir"},
        "dataset": Path(data_args.dataset).name if local else data_args.dataset,
        "fingerprint": fingerprint(documents),
        "training_documents": "streamed" if data_args.streaming else len(documents["train"]),
        "measured_on": held_out,
        "cpu_seconds": cpu_seconds,
        "statistics": tokenizer_statistics(tokenizer, texts),
        "sample": visible_pieces(tokenizer, texts[0][:200]),
    }
    show(report)

    # 4. Save: all or nothing.
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            tokenizer.save_pretrained(new := Path(temporary, "new"))
            (new / "tokenizer_report.json").write_text(json.dumps(report, indent=2) + "\n")
            new.replace(folder)
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error}") from error
    print(f"saved in {folder}; use it with --tokenizer {folder}")
    return report


def show(report):
    for name, value in (report | report["statistics"]).items():
        if not isinstance(value, dict | list):
            print(f"{name.replace('_', ' '):24}{value:>18{',.3f' if isinstance(value, float) else ''}}")
    print("|".join(report["sample"]).replace("\n", "\\n"))


def parse(argv=None):
    return parse_arguments(DataArguments, TaskArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
