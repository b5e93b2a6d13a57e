"""The loss in Hugging Face's models and Trainer, against the stock loss."""

from __future__ import annotations

import functools

import pytest
from test_torch_memory import _extra_peak, on_linux
from torch_cases import torch

from crossent.hf import ForCausalLMLoss

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
stock_loss = pytest.importorskip("transformers.loss.loss_utils").ForCausalLMLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]

VOCABULARY = 211


def _model(name, dtype=torch.float32):
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=24, n_layer=2, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).to(dtype)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def _tokens(seed=1):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (3, 16), generator=generator)
    labels = tokens.clone()
    labels[0, :5] = -100
    return tokens, labels


def _step(model, loss_function, **more):
    if loss_function is not None:
        model.loss_function = loss_function
    tokens, labels = _tokens()
    loss = model(input_ids=tokens, labels=labels, **more).loss
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("items", [None, 57, torch.tensor(57)])
def test_models_have_the_stock_loss_and_gradients(name, items, dtype):
    more = {} if items is None else {"num_items_in_batch": items}
    expected_loss, expected = _step(_model(name, dtype), None, **more)
    loss, grads = _step(_model(name, dtype), ForCausalLMLoss, **more)
    torch.testing.assert_close(loss, expected_loss, rtol=2e-6, atol=0)
    # gradients of half models are rounded on their way: one unit in the last place of the largest
    for found, true in zip(grads, expected, strict=True):
        scale = true.abs().max()
        unit = 2**-7 if dtype is torch.bfloat16 else 2e-6
        assert (found - true).abs().max() <= unit * scale + 1e-12


def test_in_place_trains_the_same():
    in_place = functools.partial(ForCausalLMLoss, inplace_backward=True)
    loss, grads = _step(_model("llama"), ForCausalLMLoss)
    again, others = _step(_model("llama"), in_place)
    assert torch.equal(loss, again)
    for found, true in zip(others, grads, strict=True):
        assert torch.equal(found, true)


@pytest.mark.parametrize("contiguous", [True, False])
def test_shifted_labels_and_ignore_index_are_honoured(contiguous):
    logits = torch.randn(2, 9, VOCABULARY)
    logits = logits if contiguous else logits[:, 1:]
    labels = torch.randint(0, VOCABULARY, logits.shape[:2])
    labels[0, :3] = 7
    for shifted in (None, labels.roll(-1, 1)):
        options = {"ignore_index": 7, "shift_labels": shifted, "vocab_size": VOCABULARY}
        expected = stock_loss(logits.contiguous(), labels, **options)
        torch.testing.assert_close(ForCausalLMLoss(logits, labels, **options), expected)


def test_nothing_to_predict_is_nan_as_in_the_stock_loss():
    logits, labels = torch.randn(1, 4, VOCABULARY), torch.full((1, 4), -100)
    for items in (None, 0):
        options = {"num_items_in_batch": items, "vocab_size": VOCABULARY}
        assert torch.isnan(stock_loss(logits, labels, **options))
        assert torch.isnan(ForCausalLMLoss(logits, labels, **options))


@on_linux
@pytest.mark.parametrize(("dtype", "fewer"), [(torch.bfloat16, 4), (torch.float32, 2)])
def test_the_peak_is_one_gradient_a_fraction_of_the_stock_losss(dtype, fewer):
    logits = torch.randn(1, 512, 40_000).to(dtype).requires_grad_()
    labels = torch.randint(0, 40_000, (1, 512))
    peaks = {}
    for loss in (stock_loss, ForCausalLMLoss):
        logits.grad = None
        peaks[loss] = _extra_peak(lambda: loss(logits, labels, 40_000).backward())
    assert peaks[ForCausalLMLoss] < peaks[stock_loss] / fewer
    assert peaks[ForCausalLMLoss] < logits.numel() * dtype.itemsize * 1.05


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_a_trainer_with_gradient_accumulation_gives_the_same_losses(tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed")

    def losses(loss_function):
        model = _model("gpt2")
        if loss_function is not None:
            model.loss_function = loss_function
        data = []
        for seed in range(16):
            tokens, labels = _tokens(seed)
            labels[:, : seed % 7] = -100  # batches of unequal weight
            data += [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=5, per_device_train_batch_size=3,
            gradient_accumulation_steps=4, logging_steps=1, learning_rate=1e-3, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = transformers.Trainer(model=model, args=settings, train_dataset=data)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    expected, found = losses(None), losses(ForCausalLMLoss)
    assert len(expected) == 5
    assert found == pytest.approx(expected, rel=1e-5)
