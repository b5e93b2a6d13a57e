"""Which of transformers' models the loss is for: the others are refused in one line."""

from __future__ import annotations

import functools

import pytest
from torch_cases import torch

import crossent.hf
from crossent.hf import ForCausalLMLoss

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]

V, T = 31, 6
TOKENS = torch.arange(2 * T).reshape(2, T) % V
SMALL = {
    "vocab_size": V, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2,
}  # fmt: skip
GPT2 = {"vocab_size": V, "n_positions": T, "n_embd": 16, "n_layer": 1, "n_head": 2}
BART = {
    "vocab_size": V, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16, "max_position_embeddings": 16,
}  # fmt: skip
T5 = {
    "vocab_size": V, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip


def _model(kind, config, **settings):
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = getattr(transformers, config)(**special, **settings)
    return getattr(transformers, kind)(made).eval()


HONOUR = {
    "LlamaForCausalLM": functools.partial(_model, "LlamaForCausalLM", "LlamaConfig", **SMALL),
    "GPT2LMHeadModel": functools.partial(_model, "GPT2LMHeadModel", "GPT2Config", **GPT2),
    "GPTNeoXForCausalLM": functools.partial(_model, "GPTNeoXForCausalLM", "GPTNeoXConfig", **SMALL),
    "BertLMHeadModel": functools.partial(
        _model, "BertLMHeadModel", "BertConfig", is_decoder=True, **SMALL
    ),
}
IGNORE = {
    "T5ForConditionalGeneration": functools.partial(
        _model, "T5ForConditionalGeneration", "T5Config", **T5
    ),
    "BartForConditionalGeneration": functools.partial(
        _model, "BartForConditionalGeneration", "BartConfig", **BART
    ),
    "BartForCausalLM": functools.partial(_model, "BartForCausalLM", "BartConfig", **BART),
    "BertForMaskedLM": functools.partial(_model, "BertForMaskedLM", "BertConfig", **SMALL),
}
CALL_ANOTHER = {
    "LlamaForSequenceClassification": functools.partial(
        _model, "LlamaForSequenceClassification", "LlamaConfig", **SMALL
    ),
    "LlamaForTokenClassification": functools.partial(
        _model, "LlamaForTokenClassification", "LlamaConfig", **SMALL
    ),
    "LlamaForQuestionAnswering": functools.partial(
        _model, "LlamaForQuestionAnswering", "LlamaConfig", **SMALL
    ),
    "ModernBertForMaskedLM": functools.partial(
        _model, "ModernBertForMaskedLM", "ModernBertConfig", cls_token_id=1, sep_token_id=2, **SMALL
    ),
}


def _marked(calls):
    """A loss that counts its calls."""

    def loss(*args, **kwargs):
        calls.append(args)
        return torch.zeros((), requires_grad=True)

    return loss


@pytest.mark.parametrize("name", HONOUR)
def test_a_causal_model_has_the_stock_loss_after_set_loss(name):
    model = HONOUR[name]()
    expected = model(input_ids=TOKENS, labels=TOKENS).loss
    assert crossent.hf.set_loss(model) is model
    torch.testing.assert_close(model(input_ids=TOKENS, labels=TOKENS).loss, expected)
    crossent.hf.set_loss(model, label_smoothing=0.5)  # once more, with options
    assert model(input_ids=TOKENS, labels=TOKENS).loss != expected


@pytest.mark.parametrize("name", IGNORE)
def test_a_model_that_would_ignore_the_loss_is_refused(name):
    model, calls = IGNORE[name](), []
    with pytest.raises(TypeError, match=f"^{name} would ignore it: its forward does not call"):
        crossent.hf.set_loss(model)
    model.loss_function = _marked(calls)
    model(input_ids=TOKENS, labels=TOKENS)
    assert not calls  # so it would have


@pytest.mark.parametrize("name", CALL_ANOTHER)
def test_a_model_of_another_task_is_refused(name):
    model = CALL_ANOTHER[name]()
    with pytest.raises(TypeError, match=f"causal language models; that of {name} is For"):
        crossent.hf.set_loss(model)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("LlamaForSequenceClassification", {"labels": torch.tensor([0, 1])}),
        ("LlamaForTokenClassification", {"labels": TOKENS % 2}),
        ("LlamaForQuestionAnswering", {"start_positions": torch.ones(2, dtype=torch.int64),
                                       "end_positions": torch.ones(2, dtype=torch.int64)}),
    ],
)  # fmt: skip
def test_the_call_of_another_task_is_one_line(name, given):
    model = CALL_ANOTHER[name]()
    model.loss_function = ForCausalLMLoss
    with pytest.raises(TypeError, match="^ForCausalLMLoss is the loss of causal language models"):
        model(input_ids=TOKENS, **given)


def test_a_wrapper_is_refused_rather_than_set():
    model = torch.nn.DataParallel(HONOUR["LlamaForCausalLM"]())
    with pytest.raises(TypeError, match="^DataParallel would ignore it.* give that one"):
        crossent.hf.set_loss(model)
    with pytest.raises(TypeError, match="^Linear would ignore it"):
        crossent.hf.set_loss(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("given", "called"), [(3, "int"), (None, "NoneType"), (torch.nn.Linear, "the class")]
)
def test_what_is_no_model_is_refused(given, called):
    said = f"^model must be a model of transformers, not {called}$"
    with pytest.raises(TypeError, match=said):
        crossent.hf.set_loss(given)


def test_an_option_that_transformers_decides_is_refused():
    for name in ("reduction", "ignore_index", "normalizer", "lable_smoothing"):
        with pytest.raises(TypeError, match=f"^ForCausalLMLoss has no option {name}"):
            crossent.hf.set_loss(HONOUR["LlamaForCausalLM"](), **{name: 0})


# Arguments

LOGITS = torch.randn(2, T, V)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"labels": None}, TypeError, "causal language models, called with.* not with a Tensor, a "
         "NoneType and a int"),
        ({"logits": None}, TypeError, "not with a NoneType"),
        ({"vocab_size": None}, TypeError, "not with a Tensor, a Tensor and a NoneType"),
        ({"vocab_size": torch.tensor(V)}, TypeError, "and a Tensor: leave"),
        ({"labels": TOKENS.tolist()}, TypeError, "not with a Tensor, a list"),
        ({"labels": TOKENS[:, 1:]}, ValueError, r"labels have shape \(2, 5\) and logits \(2, 6, 31\)"),
        ({"labels": torch.tensor(1)}, ValueError, r"labels have shape \(\) and"),
        ({"shift_labels": TOKENS[:1]}, ValueError, r"shift_labels have shape \(1, 6\) and"),
        ({"labels": TOKENS.to_sparse()}, TypeError, "labels is a torch.sparse_coo tensor"),
        ({"labels": TOKENS.float()}, TypeError, "target.*must have an integer dtype"),
        ({"num_items_in_batch": -3}, ValueError, "num_items_in_batch must be finite and > 0, not -3"),
        ({"num_items_in_batch": torch.tensor([2, 3])}, ValueError, r"num_items_in_batch has shape \(2,\)"),
        ({"num_items_in_batch": "3"}, TypeError, "num_items_in_batch must be a number, not str"),
        ({"num_items_in_batch": 10**400}, ValueError, "num_items_in_batch is beyond the range"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be an integer, not float"),
        ({"ignore_index": 2**70}, ValueError, "ignore_index=.* is not an int64"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_go_together_are_one_line(given, error, message):
    arguments = {"logits": LOGITS, "labels": TOKENS, "vocab_size": V, **given}
    with pytest.raises(error, match=message):
        ForCausalLMLoss(**arguments)


@pytest.mark.parametrize("ignored", [2**53 + 1, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_any_ignore_index_leaves_the_last_token_out(ignored, dtype):
    expected = ForCausalLMLoss(LOGITS, TOKENS, V)
    assert torch.equal(ForCausalLMLoss(LOGITS, TOKENS.to(dtype), V, ignore_index=ignored), expected)
    assert torch.equal(ForCausalLMLoss(LOGITS, TOKENS.to(dtype), V), expected)


def test_labels_without_their_memory_are_named():
    labels = TOKENS.clone()
    storage, size = labels.untyped_storage(), labels.untyped_storage().nbytes()
    storage.resize_(0)
    try:
        for name in ("labels", "shift_labels"):
            with pytest.raises(ValueError, match=f"^{name}: a tensor of shape .* has no memory"):
                ForCausalLMLoss(LOGITS, **{"labels": TOKENS, name: labels}, vocab_size=V)
    finally:
        storage.resize_(size)
