"""BERT's names in transformers (Bert...) and here; the rows are those of gpt.py."""

SAME = "same"

LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "attn_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_norm",
}
BODY = {f"encoder.layer.{{}}.{stock}": f"layers.{{}}.{ours}" for stock, ours in LAYER.items()}
BODY |= {"embeddings.LayerNorm": "embed_norm", "pooler.dense": "pooler"}
EMBEDDINGS = {
    "embeddings.word_embeddings": "embed_tokens",
    "embeddings.position_embeddings": "embed_positions",
    "embeddings.token_type_embeddings": "embed_token_types",
}
WORDS = {
    "cls.predictions.transform.dense": "transform.dense",
    "cls.predictions.transform.LayerNorm": "transform.norm",
    "cls.predictions.decoder": "lm_head",
}
PAIRS = {"cls.seq_relationship": "seq_relationship"}
FIELDS = (  # the same in both configs
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size"),
    *("initializer_range", "layer_norm_eps", "pad_token_id", "tie_word_embeddings"),
)


def _rows(names, parts=("weight", "bias")):
    return [(f"{stock}.{part}", [f"{ours}.{part}"], SAME) for stock, ours in names.items() for part in parts]


def _head(task, names, **options):
    return {"ours": f"HftBert{task}", "rows": _rows(names)} | options


class Bert:
    """BERT as an encoder."""

    model_type, our_type, module, prefix = "bert", "hft_bert", "modeling_bert", "bert"
    table = _rows(BODY) + _rows(EMBEDDINGS, ("weight",))
    heads = {
        "BertModel": _head("Model", {}),
        "BertForPreTraining": _head("ForPreTraining", WORDS | PAIRS),
        "BertForMaskedLM": _head("ForMaskedLM", WORDS),
        "BertForNextSentencePrediction": _head("ForNextSentencePrediction", PAIRS),
        "BertForSequenceClassification": _head("ForSequenceClassification", {"classifier": "score"}),
        "BertForTokenClassification": _head("ForTokenClassification", {"classifier": "score"}),
        # the stock class makes num_labels outputs and fails unless they are two
        "BertForQuestionAnswering": _head("ForQuestionAnswering", {"qa_outputs": "qa_outputs"}, has_labels=False),
        "BertForMultipleChoice": _head("ForMultipleChoice", {"classifier": "choice_score"}),
    }
    copies = {"cls.predictions.bias": "cls.predictions.decoder.bias"}  # a second name of the same numbers
    only_stock = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}

    @staticmethod
    def our_fields(config):
        """Our config fields from a stock config."""
        values = {name: getattr(config, name) for name in FIELDS}
        dropout = config.classifier_dropout
        return values | dict(classifier_dropout_prob=config.hidden_dropout_prob if dropout is None else dropout)

    @staticmethod
    def stock_fields(config):
        """Stock config fields from ours."""
        return {name: getattr(config, name) for name in FIELDS} | dict(
            classifier_dropout=config.classifier_dropout_prob
        )

    @staticmethod
    def takes(config):
        """Whether a config of ours is of this kind: all are."""
        return True


CONVERSIONS = (Bert,)
