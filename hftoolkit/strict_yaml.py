"""A strict reader for configuration files: YAML 1.2 scalars, and the line and column of every key and value.

PyYAML resolves scalars as YAML 1.1 does: `1e-4` is text, `no` is False, `012` is 10, `12:30` is 750, and the last of two
equal keys wins in silence. Here a scalar keeps the text that was written, `plain_value` reads it by the core schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/, section 10.3.2), and everything a flat configuration does not need is refused:
duplicate keys, tags, merge keys, several documents, recursive or exploding aliases.
"""

import re
from dataclasses import dataclass, field

MAX_BYTES = 1_000_000
MAX_ALIASES = 100
MAX_NODES = 4_000  # also what aliases may unfold to; a configuration has a few hundred
MAX_DEPTH = 20

NULL = re.compile(r"null|Null|NULL|~|")
TRUE = re.compile(r"true|True|TRUE")
FALSE = re.compile(r"false|False|FALSE")
INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
NOT_A_NUMBER = re.compile(r"\.(nan|NaN|NAN)")
MAX_DIGITS = 400  # beyond this a whole number is a mistake, and Python refuses to read it from 4300 digits on

# What PyYAML says, and what the writer of a configuration wants to hear.
PLAIN_WORDS = (
    ("found character '\\t'", "a tab stands here; YAML is indented with spaces"),
    ("mapping values are not allowed", "a second ': ' in one line, or wrong indentation; text with ': ' needs quotes"),
    ("could not find expected ':'", "'key: value' is expected; a ':' followed by a space is missing"),
    ("found unexpected end of stream", "a quote or bracket is not closed"),
    ("expected <block end>", "wrong indentation, or text after a closing quote"),
    ("expected ',' or", "a ',' or a closing bracket is missing"),
    ("found character '%'", "text that begins with '%' needs quotes"),
    ("found character '@'", "text that begins with '@' needs quotes"),
    ("found character '`'", "text that begins with '`' needs quotes"),
)


class YamlError(ValueError):
    """One mistake in a file, with its place (line and column count from 1)."""

    def __init__(self, message, line=1, column=1):
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass
class Scalar:
    """A value as it was written. `quoted` text is text; the meaning of plain text is `plain_value(text)`."""

    text: str
    quoted: bool = False
    line: int = 0
    column: int = 0
    size: int = 1


@dataclass
class Sequence:
    """A list of nodes."""

    items: list = field(default_factory=list)
    line: int = 0
    column: int = 0
    size: int = 1


@dataclass
class Mapping:
    """(key, value) pairs in the order of the file; keys are Scalars and differ from each other."""

    items: list = field(default_factory=list)
    line: int = 0
    column: int = 0
    size: int = 1


def plain_value(text):
    """Resolve an unquoted scalar as YAML 1.2 does: None, bool, int, float or the text itself.

    Example: 1e-4 -> 0.0001, 012 -> 12, no -> 'no', 12:30 -> '12:30', 1_000 -> '1_000', .inf -> inf.
    """
    if NULL.fullmatch(text):
        return None
    if TRUE.fullmatch(text) or FALSE.fullmatch(text):
        return text[0] in "tT"
    if len(text) <= MAX_DIGITS:
        for pattern, base in ((INTEGER, 10), (OCTAL, 8), (HEXADECIMAL, 16)):
            if pattern.fullmatch(text):
                return int(text, base)
        if FLOAT.fullmatch(text):
            return float(text)
    if INFINITY.fullmatch(text):
        return float("-inf") if text[0] == "-" else float("inf")
    if NOT_A_NUMBER.fullmatch(text):
        return float("nan")
    return text


def to_python(node):
    """Turn a node into plain Python data: dict, list, str, int, float, bool, None."""
    if isinstance(node, Mapping):
        return {key.text: to_python(value) for key, value in node.items}
    if isinstance(node, Sequence):
        return [to_python(item) for item in node.items]
    return node.text if node.quoted else plain_value(node.text)


def texts(node):
    """Return every scalar text in a node, keys included."""
    if isinstance(node, Mapping):
        return [text for pair in node.items for part in pair for text in texts(part)]
    if isinstance(node, Sequence):
        return [text for item in node.items for text in texts(item)]
    return [node.text]


def parse_yaml(data):
    """Read the bytes of a configuration file, whose top level must be a mapping.

    Returns:
        (mapping, problems): problems are the duplicate keys, all of them; of equal keys the first stays.

    Raises:
        YamlError: the file cannot be read any further.
    """
    import yaml  # 60 ms, which --help does not have

    text = decode(data)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError(f"the character U+{ord(text[error.position]):04X} is not allowed", line, column) from None
    except yaml.MarkedYAMLError as error:
        began_earlier = error.problem.startswith(("could not find", "found unexpected end", "expected ',' or"))
        mark = error.context_mark if began_earlier and error.context_mark else error.problem_mark
        words = next((ours for theirs, ours in PLAIN_WORDS if theirs in error.problem), None)
        raise YamlError(words or f"not valid YAML: {error.problem}", mark.line + 1, mark.column + 1) from None
    root = builder.root
    if root is None or (isinstance(root, Scalar) and not root.text):
        raise YamlError("the file is empty; it holds one 'key: value' per line")
    if not isinstance(root, Mapping):
        kind = "a list" if isinstance(root, Sequence) else "text"
        raise YamlError(f"the file holds {kind}; 'key: value' lines are expected", root.line, root.column)
    return root, builder.problems


def decode(data):
    """Decode UTF-8, with or without a byte order mark; name the first byte that is not UTF-8."""
    if len(data) > MAX_BYTES:
        raise YamlError(f"the file is larger than {MAX_BYTES:,} bytes: it is no configuration")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise YamlError("the file is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec drops the byte order mark before it counts.
        mark = 3 * data.startswith(b"\xef\xbb\xbf")
        at = error.start + mark
        line, column = data[:at].count(b"\n") + 1, at - max(data.rfind(b"\n", 0, at), mark - 1)
        raise YamlError(
            f"not UTF-8: byte 0x{data[at]:02x} at offset {at}; save the file as UTF-8", line, column
        ) from None


class _Builder:
    """Build nodes from parser events without recursion, so that no depth of nesting can exhaust the stack."""

    def __init__(self):
        self.root, self.problems = None, []
        self.stack = []  # [node, pending key or None, anchor]
        self.anchors, self.aliases, self.documents, self.nodes = {}, 0, 0, 0

    def take(self, event):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise YamlError("a second document begins here; a configuration is one document", line, column)
        elif kind == "AliasEvent":
            self.alias(event.anchor, line, column)
        elif kind == "ScalarEvent":
            self.check(event, line, column)
            self.finish(Scalar(event.value, event.style is not None, line, column), event.anchor)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self.check(event, line, column)
            if len(self.stack) >= MAX_DEPTH:
                raise YamlError(f"nested more than {MAX_DEPTH} deep", line, column)
            self.anchors.pop(event.anchor, None)
            node = Mapping if kind == "MappingStartEvent" else Sequence
            self.stack.append([node(line=line, column=column), None, event.anchor])
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            node, _, anchor = self.stack.pop()
            self.finish(node, anchor)

    def check(self, event, line, column):
        self.count(1, line, column)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise YamlError(f"tags are not allowed: {tag}", line, column)

    def count(self, nodes, line, column):
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES:,} values: it is no configuration", line, column)

    def alias(self, anchor, line, column):
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise YamlError(f"more than {MAX_ALIASES} aliases", line, column)
        if anchor not in self.anchors:
            raise YamlError(f"the alias *{anchor} has no anchor &{anchor} before it", line, column)
        self.count(self.anchors[anchor].size, line, column)
        self.finish(self.anchors[anchor], None, (line, column))

    def finish(self, node, anchor, place=None):
        """Put a complete node where it belongs: into its parent, as a key, or as the root."""
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        parent, key, _ = top
        parent.size += node.size
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif key is None:
            top[1] = self.as_key(node, place or (node.line, node.column))
        else:
            top[1] = None
            self.add(parent, key, node)

    def as_key(self, node, place):
        if not isinstance(node, Scalar):
            raise YamlError("a key must be text", *place)
        if node.text == "<<" and not node.quoted:
            raise YamlError("'<<' is not part of YAML 1.2; write the keys out", *place)
        return node if (node.line, node.column) == place else Scalar(node.text, node.quoted, *place)

    def add(self, parent, key, node):
        first = next((other for other, _ in parent.items if other.text == key.text), None)
        if first is None:
            parent.items.append((key, node))
        else:
            twice = f"'{key.text}' is given twice: in line {first.line} and in line {key.line}"
            self.problems.append(YamlError(twice, key.line, key.column))
