"""The architectures, and their registration with the Auto classes of transformers: the only registry.

Importing this package registers them.
"""

import importlib

ARCHITECTURES = (
    "gpt",
    "bert",
    "t5",
    "transformer",
    "word2vec",
    "bow",
    "dan",
    "textcnn",
    "nnlm",
    "rnn",
    "elmo",
    "seq2seq",
)


def register():
    """Make every architecture known to AutoConfig and the AutoModel classes; calling it twice does no harm."""
    import transformers

    for name in ARCHITECTURES:
        module = importlib.import_module(f"{__name__}.modeling_{name}")
        classes = {auto: getattr(module, path.split(".")[1]) for auto, path in module.AUTO_MAP.items()}
        config = classes.pop("AutoConfig")
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        config.register_for_auto_class()
        for auto, model in classes.items():
            getattr(transformers, auto).register(config, model, exist_ok=True)
            model.register_for_auto_class(auto)


register()
