"""Laws of training for every head of every architecture: accumulation, checkpointing, adapters."""

import copy
import gc

import pytest
import torch
from small_models import (
    DROPOUT,
    GENERATING,
    HEADS,
    HEADS_WITH_LOSS,
    RECURRENT,
    UNSCALED,
    VOCAB,
    WITHOUT_ATTENTION,
    answer,
    assert_gradients_close,
    batch,
    gradients,
    layers,
    real_answers,
)
from transformers import Trainer, TrainingArguments

ROWS = batch((12, 7, 9, 3, 12, 4, 8, 11))  # eight rows with very different numbers of labels
ATTENDING = [head for head in HEADS_WITH_LOSS if head.architecture not in WITHOUT_ATTENTION]
SPLITS = [(8, 1), (2, 4), (1, 8)]  # rows at a time, times accumulated


@pytest.fixture(scope="module", autouse=True)
def little_to_collect():
    """Trainer collects garbage at its end, which would take longer than the training itself."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=HEADS_WITH_LOSS, ids=str)
def head(request):
    return request.param


def first_steps(model, rows, tmp_path, size, accumulation, steps=2):
    """Loss and gradient norm that Trainer reports for each step over the same rows."""
    arguments = TrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        learning_rate=1e-3,
        logging_steps=1,
        train_sampling_strategy="sequential",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    examples = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    trainer = Trainer(copy.deepcopy(model), arguments, train_dataset=examples)
    trainer.train()
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry]


def assert_the_split_does_not_matter(model, rows, tmp_path, tolerance=1e-5):
    """Returns the first loss."""
    results = [first_steps(model, rows, tmp_path, *split) for split in SPLITS]
    assert len(results[0]) == 2
    for result in results[1:]:
        assert torch.tensor(result).flatten().tolist() == pytest.approx(
            torch.tensor(results[0]).flatten().tolist(), rel=tolerance
        )
    return results[0][0][0]


def test_the_split_into_batches_does_not_matter(head, tmp_path):
    """Stock heads that ignore num_items_in_batch train with four times the gradient at four accumulated batches."""
    tolerance = 1e-3 if head.architecture in UNSCALED else 1e-5
    assert_the_split_does_not_matter(head.model(), head.labelled(ROWS), tmp_path, tolerance)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        (dict(num_labels=1), torch.linspace(-1, 1, 8)),
        (dict(problem_type="multi_label_classification"), torch.arange(24).view(8, 3).remainder(5).gt(2).float()),
    ],
    ids=["regression", "multi-label"],
)
@pytest.mark.parametrize("name", ["gpt2-ModelForSequenceClassification", "bert-ModelForSequenceClassification"])
def test_the_split_does_not_matter_to_other_kinds_of_labels(name, changes, labels, tmp_path):
    head = next(head for head in HEADS_WITH_LOSS if str(head) == name)
    model, rows = head.model(**changes), ROWS | dict(labels=labels)
    first_loss = assert_the_split_does_not_matter(model, rows, tmp_path)
    assert first_loss == pytest.approx(model(**rows).loss.item(), rel=1e-5)


def test_the_law_notices_a_head_that_ignores_the_count(tmp_path):
    head = HEADS_WITH_LOSS[0]

    class Forgetful(head.model_class):
        accepts_loss_kwargs = True

        def forward(self, input_ids, attention_mask=None, labels=None, num_items_in_batch=None):
            return super().forward(input_ids, attention_mask=attention_mask, labels=labels)

    rows = head.labelled(ROWS)
    whole, accumulated = (
        first_steps(Forgetful(head.config()), rows, tmp_path, *split, steps=1)[0] for split in SPLITS[:2]
    )
    assert accumulated[0] > 3 * whole[0]


def test_the_training_loss_is_the_evaluation_loss(head):
    """The chunked loss of training and the one from full logits, with and without a given count."""
    model, inputs = head.model(), head.labelled(ROWS)
    for count in (None, 50):
        both = [model.train(training)(**inputs, num_items_in_batch=count).loss for training in (True, False)]
        torch.testing.assert_close(*both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", HEADS_WITH_LOSS, ids=str)
def test_a_batch_without_labels_has_loss_zero(head):
    model = head.model().train()
    loss = model(**head.unlabelled(batch())).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in model.parameters())


@pytest.mark.parametrize("head", [head for head in HEADS if head.model_class.supports_gradient_checkpointing], ids=str)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
def test_gradient_checkpointing_changes_no_gradient(head):
    """With dropout: the recomputation draws the same random numbers."""
    model = head.model(**DROPOUT[head.architecture]).train()
    inputs = head.labelled(batch())
    forwards = []
    for layer in layers(model):
        is_recurrent = head.architecture in RECURRENT
        part = (layer.weight_dropout if layer.weight_dropout.p else layer.forward_rnn) if is_recurrent else layer.mlp
        part.register_forward_pre_hook(lambda *_: forwards.append(1))
    torch.manual_seed(0)
    expected = gradients(model, **inputs)
    once = len(forwards)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    torch.manual_seed(0)
    assert_gradients_close(gradients(model, **inputs), expected, tolerance=1e-6)
    assert len(forwards) - once == 2 * once > 0  # it was computed a second time


@pytest.mark.parametrize("head", ATTENDING, ids=str)
def test_lora_on_all_linear_layers(head):
    """Starts as the model, trains only the adapters, and merges into the same function."""
    from peft import LoraConfig, get_peft_model

    tasks = {"CausalLM": "CAUSAL_LM", "SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}
    tasks |= {"QuestionAnswering": "QUESTION_ANS", "Seq2SeqLM": "SEQ_2_SEQ_LM"}
    task = next((tasks[name] for name in tasks if name in head.auto), None)
    heads = {"TOKEN_CLS": ["score"], "QUESTION_ANS": ["qa_outputs"]}  # PEFT leaves out the head of SEQ_CLS only
    options = dict(exclude_modules=heads[task]) if task in heads else {}
    model, inputs = head.model(), head.inputs(batch())
    before = real_answers(model, inputs)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(task_type=task, target_modules="all-linear", r=4, **options))
    targets = {name.split(".")[-1] for name in adapted.targeted_module_names}
    assert targets >= {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert not targets & {"lm_head", "score", "qa_outputs"}
    torch.testing.assert_close(real_answers(adapted.eval(), inputs), before)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        adapted.train()(**head.labelled(batch())).loss.backward()
        optimizer.step()
        trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
        assert all(any(part in name for part in ("lora_", "score", "qa_outputs")) for name in trained)
        assert all(p.grad is not None for name, p in adapted.named_parameters() if name in trained)
        optimizer.zero_grad()
    after = real_answers(adapted.eval(), inputs)
    assert (after - before).abs().max() > 1e-3
    merged = adapted.merge_and_unload()
    noise = 1e-3 if head.architecture in UNSCALED else 1e-5
    torch.testing.assert_close(real_answers(merged, inputs), after, rtol=noise, atol=noise)


@pytest.mark.parametrize("head", [head for head in GENERATING if head.architecture not in RECURRENT], ids=str)
def test_a_trained_prefix_is_read_in_training_too(head):
    """It comes as a cache, which the model otherwise does without while it trains."""
    from peft import PrefixTuningConfig, get_peft_model

    plain, inputs = head.model(), head.labelled(batch())
    task = "SEQ_2_SEQ_LM" if head.writes else "CAUSAL_LM"
    options = dict(task_type=task, num_virtual_tokens=3)
    sizes = plain.config  # of which PEFT would take hidden_size and num_hidden_layers
    options |= dict(num_layers=sizes.num_decoder_layers) if head.writes else {}
    if head.architecture == "t5":
        options |= dict(token_dim=sizes.num_attention_heads * sizes.head_dim)
    model = get_peft_model(head.model(), PrefixTuningConfig(**options))
    losses = [model.train(training)(**inputs).loss for training in (True, False)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    assert abs(losses[0] - plain(**inputs).loss) > 1e-3
    losses[0].backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("head", GENERATING, ids=str)
def test_label_smoothing_and_z_loss_train_but_do_not_evaluate(head):
    inputs = head.labelled(batch())
    plain, changed = head.model(), head.model(label_smoothing=0.1, z_loss=0.01)
    torch.testing.assert_close(changed(**inputs).loss, plain(**inputs).loss)
    logits, targets = plain(**inputs).logits, inputs["labels"]
    if head.is_causal:
        logits, targets = logits[:, :-1], targets[:, 1:]
    logits, targets = logits.flatten(0, 1), targets.flatten()
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    expected = expected + 0.01 * logits.logsumexp(-1)[targets != -100].square().mean()
    torch.testing.assert_close(changed.train()(**inputs).loss, expected)


@pytest.mark.parametrize("head", GENERATING, ids=str)
def test_training_returns_no_logits_unless_asked(head):
    """Nobody reads them, and they are the largest tensor of a step."""
    model, inputs = head.model().train(), head.labelled(batch())
    silent, asked = model(**inputs), model(**inputs, logits_to_keep=0)
    assert silent.logits is None
    assert asked.logits.shape == (3, 12, VOCAB)
    torch.testing.assert_close(asked.loss, silent.loss)
    inputs_alone = head.inputs(batch())
    read = inputs_alone.get("decoder_input_ids", inputs_alone["input_ids"])
    assert answer(model(**inputs_alone)).shape == (*read.shape, VOCAB)
    assert model(**inputs, logits_to_keep=2).logits.shape == (3, 2, VOCAB)
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).loss, silent.loss)


@pytest.mark.parametrize("head", [head for head in GENERATING if head.is_causal], ids=str)
def test_shifted_labels_are_the_same_loss(head):
    for training in (True, False):
        model, inputs = head.model().train(training), head.labelled(batch())
        labels = inputs.pop("labels")
        shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        torch.testing.assert_close(
            model(**inputs, labels=labels).loss, model(**inputs, labels=labels, shift_labels=shifted).loss
        )
