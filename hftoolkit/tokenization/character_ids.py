"""Character ids: a text as its bytes, from which a model makes words.

The tokens are those of ELMo's character vocabulary (allenai/bilm-tf at 81a4b54, bilm/data.py, UnicodeCharsVocabulary):
byte b has id b, then <S>, </S>, <W>, </W> and <pad>. The byte of a space stands before every word, so that nothing but
the ids tells where words begin, and no word is unknown. The borders <W> and </W> of words are set by the model.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .train import byte_symbols

SPECIAL = ("<S>", "</S>", "<W>", "</W>", "<pad>")  # 256 to 260
EDGES = (
    r"""^["(\[`]+|[.,;:!?"')\]`]+$"""  # punctuation that is parted from a word; inside of one (U.S, don't) it stays
)


def character_tokenizer(split_punctuation=True, model_max_length=None):
    """The tokenizer of a model that reads characters; <S> and </S> stand around a text. Nothing is learnt.

    Args:
        split_punctuation: whether punctuation at the edges of a word is a word of its own; without it words are what
            white space parts, for texts that are split already.
        model_max_length: in bytes; None is no limit.

    Example:
        'Yes, a "U.S." ox.' -> words <S> Yes , a " U.S ." ox . </S>
    """
    backend = Tokenizer(models.BPE({symbol: byte for byte, symbol in enumerate(byte_symbols())}, []))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    edges = [pre_tokenizers.Split(Regex(EDGES), "isolated")] if split_punctuation else []
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), *edges, to_bytes])
    backend.decoder = decoders.ByteLevel()
    ends = [(token, backend.token_to_id(token)) for token in SPECIAL[:2]]
    template = dict(single="<S> $A </S>", pair="<S> $A </S> <S> $B </S>")
    backend.post_processor = processors.TemplateProcessing(**template, special_tokens=ends)
    options = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        bos_token="<S>",
        eos_token="</S>",
        pad_token="<pad>",
        **options,
    )


def words_of(tokenizer, text):
    """The words of a text as its tokenizer parts them, without <S> and </S>.

    Example:
        'Yes, an ox.' -> ['Yes', ',', 'an', 'ox', '.']
    """
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in pieces]
