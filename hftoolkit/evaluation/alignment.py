"""What a translation looks at: cross-attention as a picture, a row for each token that is written.

Papers: Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, Figure 3; Garg et al. 2019,
https://aclanthology.org/D19-1453, Section 4.1 (of a Transformer, the mean over the heads of the layer before the last
comes closest to word alignments).
"""

from hftoolkit.plots import save_figure


def cross_attention(model, tokenizer, source, target):
    """How much each token of the target attends to each of the source while it is predicted.

    Args:
        source, target: texts.

    Returns:
        (tokens of the source, tokens of the target, array (target, source) whose rows sum to 1), or None of a model
        without cross-attention.
    """
    import torch

    encoded = tokenizer(source, add_special_tokens=False), tokenizer(text_target=target, add_special_tokens=False)
    sides = [side["input_ids"] + [tokenizer.eos_token_id] for side in encoded]
    implementation, was_training = model.config._attn_implementation, model.training
    model.eval()
    model.set_attn_implementation("eager")  # the others do not return what they attend to
    try:
        with torch.inference_mode():
            tensors = [torch.tensor([ids], device=model.device) for ids in sides]
            output = model(input_ids=tensors[0], labels=tensors[1], output_attentions=True, return_dict=True)
    finally:
        model.set_attn_implementation(implementation)
        model.train(was_training)
    layers = output.cross_attentions
    if layers is None:
        return None
    weights = layers[max(len(layers) - 2, 0)][0].float().mean(0).cpu().numpy()
    return *([_shown(tokenizer, token) for token in ids] for ids in sides), weights


def _shown(tokenizer, token):
    return tokenizer.convert_ids_to_tokens(token) if token in tokenizer.all_special_ids else tokenizer.decode([token])


def draw_alignments(model, tokenizer, pairs, path, *, title=None):
    """Draw the cross-attention of pairs (source, target) side by side into a PNG file, whole or not at all.

    Of a model without attention there is nothing to draw, and no file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [cross_attention(model, tokenizer, *pair) for pair in pairs]
    if None in found:
        return
    widths = [len(source) for source, _, _ in found]
    tallest = max(len(target) for _, target, _ in found)
    figure = Figure(figsize=(1.5 * len(found) + 0.28 * sum(widths), 1.6 + 0.28 * tallest), dpi=120,
                    layout="constrained")  # fmt: skip
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    axes = figure.subplots(1, len(found), squeeze=False, width_ratios=widths)[0]
    for one, (source, target, weights) in zip(axes, found, strict=True):
        image = one.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0)
        one.set_xticks(range(len(source)), source, rotation=90, fontsize="small", parse_math=False)  # a $ is a $
        one.set_yticks(range(len(target)), target, fontsize="small", parse_math=False)
        one.xaxis.tick_top()
        one.tick_params(length=0)
        one.set_xlabel("source")
    axes[0].set_ylabel("translation")
    figure.colorbar(image, ax=axes[-1], shrink=0.6, label="attention (mean of the heads)")
    if title:
        figure.suptitle(title)
    save_figure(figure, path)
