"""Laws over generated input: YAML, numbers, text, command lines, misspelt keys."""

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hftoolkit import stock_arguments
from hftoolkit.arguments import parse_arguments
from hftoolkit.arguments.near_names import nearest
from hftoolkit.strict_yaml import YamlError, parse_yaml, to_python

TRAINING = "transformers.TrainingArguments"

PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.sampled_from("aZ09 :#-?,.'\"[]{}&*!|>%@`~=\\/<\u00e9\u6f22\U0001f600"), max_size=12)
NESTED = st.recursive(
    PLAIN | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
DOCUMENT = st.dictionaries(TEXT, NESTED, min_size=1, max_size=4)
QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


@QUICK
@given(DOCUMENT)
def test_law_json_is_read_as_json_reads_it(document):
    """JSON is a subset of YAML 1.2, so json is the reference."""
    read, problems = parse_yaml(json.dumps(document, ensure_ascii=False).encode())
    assert to_python(read) == document and not problems


@QUICK
@given(st.binary() | TEXT.map(str.encode) | st.text("ab:-[]{}&*!|>'\"#%@ \n\t,?0").map(str.encode))
def test_law_no_bytes_end_in_anything_but_a_yaml_error(data):
    try:
        read, _ = parse_yaml(data)
    except YamlError as error:
        assert error.line >= 1 and error.column >= 1 and str(error).isprintable()
    else:
        assert isinstance(to_python(read), dict)


@QUICK
@given(st.floats(min_value=1e-300, max_value=1e300))
@example(1e-05)
def test_law_every_written_number_arrives_unchanged(parse, number):
    for text in (repr(number), f"{number:e}", f"{number:.17g}"):
        _, stock = parse(f"learning_rate: {text}\n")
        _, flag = parse("", f"--learning_rate={text}")
        assert stock.learning_rate == flag.learning_rate == float(text)


@QUICK
@given(TEXT)
def test_law_quoted_text_arrives_unchanged(parse, text):
    task, _ = parse(f"note: {json.dumps(text, ensure_ascii=False)}\n")
    assert task.note == text


@QUICK
@given(
    st.lists(
        st.text(max_size=8) | st.sampled_from(["--note", "--sizes", "--seed", "--bf16", "--words", "1", "-1", "a=b"])
    )
)
def test_law_no_command_line_ends_in_a_traceback(small, words):
    if not {"-h", "--help"} & set(words):
        try:
            task, stock = parse_arguments(*small, argv=words)
        except SystemExit as ended:
            assert ended.code == 2
        else:
            assert json.loads(json.dumps(stock.given_arguments)) == stock.given_arguments


@QUICK
@given(st.sampled_from(sorted(stock_arguments.read_fields(TRAINING))), st.data())
def test_law_a_slip_of_one_letter_is_recognised(name, data):
    """Two letters swapped in a key of at least 8 letters: the nearest key is nearly always the one that was meant."""
    at = data.draw(st.integers(0, len(name) - 2))
    slip = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    names = list(stock_arguments.read_fields(TRAINING))
    if len(name) >= 8 and slip not in names:
        near = nearest(slip, names)
        assert near == name or len(near) == len(name), (slip, near)
