"""GPT's names in transformers (GPT2..., OpenAIGPT...) and here.

A row is (stock name, our names, layout): SAME copies, TRANSPOSE turns a Conv1D matrix (in, out) into a Linear's
(out, in); several names of ours are slices of one stock tensor along its output. `{}` is the number of the layer.
"""

from hftoolkit.errors import CheckpointError

SAME, TRANSPOSE = "same", "transpose"

ATTENTION = ["layers.{}.self_attn.q_proj", "layers.{}.self_attn.k_proj", "layers.{}.self_attn.v_proj"]
MATRICES = [
    ("h.{}.attn.c_attn", ATTENTION),
    ("h.{}.attn.c_proj", ["layers.{}.self_attn.o_proj"]),
    ("h.{}.mlp.c_fc", ["layers.{}.mlp.up_proj"]),
    ("h.{}.mlp.c_proj", ["layers.{}.mlp.down_proj"]),
]
NORMS = [("h.{}.ln_1", "layers.{}.attn_norm"), ("h.{}.ln_2", "layers.{}.mlp_norm"), ("ln_f", "norm")]
FIELDS = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "embd_pdrop": "embedding_dropout_prob",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_word_embeddings",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}
GPT1_ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu"}  # its "gelu" is the tanh form


def _table(tokens, positions):
    """The two generations differ in the names of the embeddings (and in the final norm, which GPT-1 lacks)."""
    rows = [
        (f"{tokens}.weight", ["embed_tokens.weight"], SAME),
        (f"{positions}.weight", ["embed_positions.weight"], SAME),
    ]
    for stock, ours in MATRICES:
        rows.append((f"{stock}.weight", [f"{name}.weight" for name in ours], TRANSPOSE))
        rows.append((f"{stock}.bias", [f"{name}.bias" for name in ours], SAME))
    for stock, ours in NORMS:
        rows += [(f"{stock}.{part}", [f"{ours}.{part}"], SAME) for part in ("weight", "bias")]
    return rows


def _head(ours, stock="", rows=()):
    return {"ours": ours, "rows": [(f"{stock}.{part}", [f"{our}.{part}"], SAME) for our, part in rows]}


def _classifier():
    """The classifier of a sequence, which in transformers has no bias."""
    head = _head("HftGptForSequenceClassification", "score", [("score", "weight")])
    return head | {"fields": {"score_bias": False}}


def _double_heads():
    """The language model and the scores of choices; only the form for choices is one of transformers."""
    summary = [(f"multiple_choice_head.summary.{part}", [f"task_score.{part}"], SAME) for part in ("weight", "bias")]
    rows = [("lm_head.weight", ["lm_head.weight"], SAME), *summary]
    renamed = {"classifier_dropout_prob": "summary_first_dropout"}
    fields = {"task_form": "choice"}
    return {"ours": "HftGptForTaskClassification", "rows": rows, "fields": fields, "renamed": renamed}


class Gpt2:
    """GPT-2: pre-norm."""

    model_type, our_type, module, prefix = "gpt2", "hft_gpt", "modeling_gpt", "transformer"
    table = _table("wte", "wpe")
    heads = {
        "GPT2Model": _head("HftGptModel"),
        "GPT2LMHeadModel": _head("HftGptForCausalLM", "lm_head", [("lm_head", "weight")]),
        "GPT2ForSequenceClassification": _classifier(),
        "GPT2DoubleHeadsModel": _double_heads(),
        "GPT2ForTokenClassification": _head(
            "HftGptForTokenClassification", "classifier", [("score", "weight"), ("score", "bias")]
        ),
    }
    copies = {}
    only_stock = {  # options of the stock class that ours does not have, and the one value that is the same model
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "scale_attn_weights": True,
    }

    @staticmethod
    def our_fields(config):
        """Our config fields from a stock config."""
        values = {ours: getattr(config, stock) for stock, ours in FIELDS.items()}
        dropout = getattr(config, "classifier_dropout", None)  # read by the stock head, but no field of its config
        values["classifier_dropout_prob"] = 0.1 if dropout is None else dropout
        return values | dict(norm_order="pre", intermediate_size=config.n_inner, hidden_act=config.activation_function)

    @staticmethod
    def stock_fields(config):
        """Stock config fields from ours."""
        values = {stock: getattr(config, ours) for stock, ours in FIELDS.items()}
        values["classifier_dropout"] = config.classifier_dropout_prob
        return values | dict(n_inner=config.intermediate_size, activation_function=config.hidden_act)

    @staticmethod
    def takes(config):
        """Whether a config of ours is of this generation."""
        return config.norm_order == "pre"


class OpenAIGpt:
    """GPT-1: post-norm."""

    model_type, our_type, module, prefix = "openai-gpt", "hft_gpt", "modeling_gpt", "transformer"
    table = _table("tokens_embed", "positions_embed")
    heads = {
        "OpenAIGPTModel": _head("HftGptModel"),
        "OpenAIGPTLMHeadModel": _head("HftGptForCausalLM", "lm_head", [("lm_head", "weight")]),
        "OpenAIGPTDoubleHeadsModel": _double_heads(),
        "OpenAIGPTForSequenceClassification": _classifier(),
    }
    copies, only_stock = {}, {}

    @staticmethod
    def our_fields(config):
        """Our config fields from a stock config."""
        values = {ours: getattr(config, stock) for stock, ours in FIELDS.items()}
        return values | dict(norm_order="post", hidden_act=GPT1_ACTIVATIONS[config.afn])

    @staticmethod
    def stock_fields(config):
        """Stock config fields from ours.

        Raises:
            CheckpointError: an activation or width that OpenAIGPT does not have.
        """
        names = {ours: stock for stock, ours in GPT1_ACTIVATIONS.items() if stock != "swish"}
        if config.hidden_act not in names or config.intermediate_size != 4 * config.hidden_size:
            raise CheckpointError(
                f"OpenAIGPT of transformers has no hidden_act={config.hidden_act!r} with intermediate_size="
                f"{config.intermediate_size}; it knows {', '.join(names)} and 4 x hidden_size"
            )
        return {stock: getattr(config, ours) for stock, ours in FIELDS.items()} | dict(afn=names[config.hidden_act])

    @staticmethod
    def takes(config):
        """Whether a config of ours is of this generation."""
        return config.norm_order == "post"


CONVERSIONS = (Gpt2, OpenAIGpt)
