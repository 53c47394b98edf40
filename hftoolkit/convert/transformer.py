"""The Transformer's names in transformers (Marian..., the form of the Opus-MT models) and here; rows as in gpt.py."""

from hftoolkit.errors import CheckpointError

SAME, AS_ROW = "same", "as row"  # (n,) here is (1, n) there
LAYER_NORM_EPS = 1e-5  # which Marian does not write down: it is that of torch.nn.LayerNorm
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}
FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "decoder_layers": "num_decoder_layers",
    "activation_function": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation_dropout": "activation_dropout_prob",
    "pad_token_id": "pad_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "decoder_start_token_id": "decoder_start_token_id",
}
BOTH_STACKS = {"attention_heads": "num_attention_heads", "ffn_dim": "intermediate_size"}
WITHOUT_A_NAME = dict(norm_position="post", position_layout="halves", layer_norm_eps=LAYER_NORM_EPS)
WITHOUT_A_NAME |= dict(tie_word_embeddings=True)  # without it Marian has two tables of words, and ours one


def _stack(stack, attentions):
    """Names of the encoder or the decoder; attentions are (stock name, our name)."""
    prefix = f"{stack}.layers.{{}}"
    names = {f"{prefix}.fc1": f"{prefix}.mlp.up_proj", f"{prefix}.fc2": f"{prefix}.mlp.down_proj"}
    names[f"{prefix}.final_layer_norm"] = f"{prefix}.mlp_norm"
    for theirs, ours in attentions:
        names |= {f"{prefix}.{theirs}.{a}": f"{prefix}.{ours}.{b}" for a, b in ATTENTION.items()}
        names[f"{prefix}.{theirs}_layer_norm"] = f"{prefix}.{ours.removeprefix('self_')}_norm"
    return names


class Marian:
    """Post-norm, all sines before all cosines, scaled embeddings that encoder and decoder share."""

    model_type, our_type, module, prefix = "marian", "hft_transformer", "modeling_transformer", "model"
    table = [("shared.weight", ["encoder.embed_tokens.weight"], SAME)] + [
        (f"{theirs}.{part}", [f"{ours}.{part}"], SAME)
        for theirs, ours in (
            _stack("encoder", [("self_attn", "self_attn")])
            | _stack("decoder", [("self_attn", "self_attn"), ("encoder_attn", "cross_attn")])
        ).items()
        for part in ("weight", "bias")
    ]
    heads = {
        "MarianModel": {"ours": "HftTransformerModel", "rows": [], "has_labels": False},
        "MarianMTModel": {
            "ours": "HftTransformerForConditionalGeneration",
            "rows": [
                ("lm_head.weight", ["lm_head.weight"], SAME),
                ("final_logits_bias", ["lm_head.bias"], AS_ROW),
            ],
            "has_labels": False,
        },
    }
    copies = {  # other names of the same numbers
        f"{prefix}{stack}.embed_tokens.weight": f"{prefix}shared.weight"
        for prefix in ("", "model.")
        for stack in ("encoder", "decoder")
    }
    own_numbers = {  # which the stock class computes, or begins with where we have none
        "final_logits_bias",
        *(f"{prefix}{stack}.embed_positions.weight" for prefix in ("", "model.") for stack in ("encoder", "decoder")),
    }
    only_stock = dict(scale_embedding=True, share_encoder_decoder_embeddings=True, tie_word_embeddings=True)
    only_stock |= dict(encoder_layerdrop=0.0, decoder_layerdrop=0.0)

    @staticmethod
    def our_fields(config):
        """Our config fields from a stock config.

        Raises:
            CheckpointError: an encoder and a decoder that differ in more than their depth.
        """
        values = {ours: getattr(config, stock) for stock, ours in FIELDS.items()}
        pairs = [("vocab_size", "decoder_vocab_size")]
        pairs += [(f"encoder_{stock}", f"decoder_{stock}") for stock in BOTH_STACKS]
        for pair in pairs:
            first, second = (getattr(config, name) for name in pair)
            if first != second:
                raise CheckpointError(f"hft_transformer has no {pair[0]}={first} beside {pair[1]}={second}")
        values |= {ours: getattr(config, f"encoder_{stock}") for stock, ours in BOTH_STACKS.items()}
        return values | WITHOUT_A_NAME | dict(lm_head_bias=True, label_smoothing=0.0)

    @staticmethod
    def stock_fields(config):
        """Stock config fields from ours.

        Raises:
            CheckpointError: an option that Marian of transformers does not have.
        """
        for name, value in WITHOUT_A_NAME.items():
            if getattr(config, name) != value:
                raise CheckpointError(
                    f"Marian of transformers is {name}={value!r} only, but here it is {getattr(config, name)!r}"
                )
        values = {stock: getattr(config, ours) for stock, ours in FIELDS.items()}
        for side in ("encoder", "decoder"):
            values |= {f"{side}_{stock}": getattr(config, ours) for stock, ours in BOTH_STACKS.items()}
        return values | dict(scale_embedding=True, forced_eos_token_id=config.eos_token_id)

    @staticmethod
    def takes(config):
        """Whether a config of ours is of this kind; stock_fields says why not."""
        return True


CONVERSIONS = (Marian,)
