"""Names that default exports lost, recovered from the original module's own weights."""

from __future__ import annotations

import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.frameworks.absorb import absorb  # noqa: E402
from onnx_net2net.frameworks.names import Names  # noqa: E402
from onnx_net2net.frameworks.state_dict import named_weights, save_safetensors, state_dict  # noqa: E402
from onnx_net2net.frameworks.weight_matching import LIKENESS, recovered  # noqa: E402
from onnx_net2net.model.model import load  # noqa: E402
from tests.console import ROOT  # noqa: E402

FIXTURES = ROOT / "fixtures"
State = dict[str, Any]


@cache
def modules() -> dict[str, Any]:
    """The networks that the fixtures were exported from, by name; those without transformers."""
    sys.path.insert(0, str(FIXTURES / "makers"))
    try:
        import attention_networks as vit
        import convnets as conv
        import dense_prediction as dense
        import networks as nets
        import recurrent as rnn
        import signal_networks as signals
    finally:
        sys.path.remove(str(FIXTURES / "makers"))
    nn = torch.nn
    return {
        "convnext": conv.ConvNeXt,
        "densenet": conv.DenseNet,
        "groupnorm": conv.GroupNormNet,
        "gru": lambda: rnn.RecurrentClassifier(nn.GRU, 12, 11),
        "gru-state": lambda: rnn.FinalState(nn.GRU, 6, 9),
        "if": rnn.Branches,
        "lenet": nets.LeNet,
        "lstm": lambda: rnn.RecurrentClassifier(nn.LSTM, 13, 10),
        "lstm-state": lambda: rnn.FinalState(nn.LSTM, 6, 9),
        "mlp": nets.MLP,
        "resnet": nets.resnet,
        "rnn-state": lambda: rnn.FinalState(nn.RNN, 5, 9),
        "superresolution": dense.SuperResolution,
        "swin": vit.SwinTransformer,
        "video": signals.VideoNet,
        "vit": vit.VisionTransformer,
        "vit-mha": vit.MultiheadVit,
        "wavenet": signals.WaveNet,
    }


FOLDED = {"densenet", "resnet", "video"}
TABLES = {"swin"}  # position tables were gathered by the exporter
NAMES = {
    *FOLDED, *TABLES, "convnext", "groupnorm", "gru", "gru-state", "if", "lenet", "lstm",
    "lstm-state", "mlp", "rnn-state", "superresolution", "vit", "vit-mha", "wavenet",
}  # fmt: skip
EXPORTS = [
    path
    for path in sorted(FIXTURES.glob("*.onnx"))
    if path.stem.split(".")[0] in NAMES and path.stem.split(".")[1].startswith(("dynamo", "ts"))
]


@cache
def original(network: str) -> State:
    """The state dict of the module that the fixtures of ``network`` were exported from."""
    build = modules()[network]
    sys.path.insert(0, str(FIXTURES / "makers"))
    try:
        from export import randomise
    finally:
        sys.path.remove(str(FIXTURES / "makers"))
    seed = zlib.crc32(network.encode())
    torch.manual_seed(seed)
    module = build().eval()
    randomise(module, torch.Generator().manual_seed(seed))
    return dict(module.state_dict())


@pytest.mark.parametrize("path", EXPORTS, ids=lambda p: p.stem)
def test_every_name_of_the_original_comes_back_or_the_export_is_refused(path: Path) -> None:
    network, exporter = path.stem.split(".")
    base, state = load(path), original(network)
    if network in FOLDED | TABLES and not exporter.endswith("raw"):
        with pytest.raises(n2n.Refused) as error:
            recovered(base, state, base)
        assert "from_torch" in str(error.value.remedy)
        if network in FOLDED:
            assert "folded BatchNorm" in error.value.reason
            assert "running_mean" in str(error.value.node)
        else:
            assert "relative_position_bias_table" in str(error.value.node)
        return
    unread = {key for key in state if network == "wavenet" and key.startswith("residual.1.")}
    if unread:
        with pytest.raises(n2n.Refused, match=r"(?s)residual\.1\..*does not read"):
            recovered(base, state, base)
        state = {key: tensor for key, tensor in state.items() if key not in unread}
    found = recovered(base, state, base)
    assert found.keys() == state.keys()
    for key, weight in found.items():
        assert weight.shape == tuple(state[key].shape), key
        assert np.array_equal(weight.array(), state[key].numpy()), key


def unfolded(network: str) -> n2n.Model:
    return load(FIXTURES / f"{network}.dynamo-raw.onnx")


@pytest.mark.parametrize("exporter", ["dynamo", "ts17"])
@pytest.mark.parametrize(
    ("network", "grown"),
    [
        ("bert", {"intermediate.dense": 40, "self.value:v_head_size": 8}),
        ("llama", {"layers.0.mlp.gate_proj": 50}),
        ("vit", {"blocks.0.mlp.fc1": 41, "blocks.1.mlp.fc1": 30}),
    ],
)
def test_recovered_weights_compute_the_same_in_the_unfolded_file(
    network: str, grown: dict[str, int], exporter: str
) -> None:
    """Grown in a default export, brought back, and put into the file that kept every name."""
    raw, base = unfolded(network), load(FIXTURES / f"{network}.{exporter}.onnx")
    widths = _meant(base, grown)
    wider = n2n.widen(base, widths)
    like = {key: weight.array() for key, weight in named_weights(raw).items()}
    state = state_dict(wider, like, base)
    target = n2n.widen(raw, _meant(raw, grown), split="even")
    known = {k: v for k, v in state.items() if Names(target).find(k)}
    assert n2n.verify(raw, absorb(target, known))
    assert not n2n.verify(raw, absorb(target, {**known, **_swapped(known)})), "or it sees nothing"


def _meant(model: n2n.Model, grown: dict[str, int]) -> dict[str, int]:
    """The dimensions whose names hold these words."""
    found = {
        d.name: width
        for words, width in grown.items()
        for d in n2n.inspect(model)
        if words in d.name
    }
    assert found, [d.name for d in n2n.inspect(model)]
    return found


def _swapped(state: State) -> State:
    """Two weights of equal shape, exchanged."""
    names = list(state)
    pair = next((a, b) for a in names for b in names if a < b and state[a].shape == state[b].shape)
    return {pair[0]: state[pair[1]], pair[1]: state[pair[0]]}


# ---- equal contents


def alike(network: str, exporter: str) -> tuple[n2n.Model, State]:
    """A file and its original whose norms, and all square matrices, hold the same numbers."""
    base, state = load(FIXTURES / f"{network}.{exporter}.onnx"), dict(original(network))
    recover = recovered(base, state, base)
    assert recover.keys() == state.keys()
    rng = np.random.default_rng(0)
    values: dict[tuple[int, ...], np.ndarray] = {}
    changed = {}
    for key, tensor in state.items():
        shape = tuple(tensor.shape)
        values.setdefault(shape, rng.normal(size=shape).astype(np.float32))
        state[key] = torch.from_numpy(values[shape])
    weights = {n: w.array() for n, w in base.weights.items()}
    for key, weight in recover.items():
        old = weight.array()
        for name, array in weights.items():
            if array.size == old.size and array.dtype == old.dtype:
                new = values[old.shape]
                if array.shape == old.shape and np.array_equal(array, old):
                    changed[name] = new
                elif (
                    array.ndim == 2 and array.shape == old.T.shape and np.array_equal(array, old.T)
                ):
                    changed[name] = np.ascontiguousarray(new.T)
        del key
    from onnx_net2net.frameworks.state_dicts import held

    proto = type(base.proto)()
    proto.CopyFrom(base.proto)
    return base.with_changes(proto, {n: held(n, a) for n, a in changed.items()}), state


@pytest.mark.parametrize("exporter", ["dynamo", "ts17"])
def test_weights_of_equal_contents_are_told_apart_by_their_modules(exporter: str) -> None:
    base, state = alike("vit-mha", exporter)
    wider = n2n.widen(base, {d.name: d.width + 3 for d in n2n.inspect(base) if "mlp" in d.name})
    found = recovered(wider, _apart(state), base)
    for block, width in (("layers.0", 31), ("layers.1", 27)):
        assert found[f"{block}.mlp.0.weight"].shape == (width + 3, 18)
        assert found[f"{block}.mlp.2.weight"].shape == (18, width + 3)


def _apart(state: State) -> State:
    """Tensors that share no memory: equal, but not tied."""
    return {key: tensor.clone() for key, tensor in state.items()}


def test_what_cannot_be_told_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base, state = alike("vit-mha", "dynamo")
    wider = n2n.widen(base, {d.name: 2 * d.width for d in n2n.inspect(base) if d.growth == "any"})
    recovered(wider, _apart(state), base)
    monkeypatch.setattr("onnx_net2net.frameworks.weight_matching.LIKENESS", LIKENESS[:0])
    with pytest.raises(n2n.Refused, match="which were equal and now differ"):
        recovered(wider, _apart(state), base)


def test_copies_of_a_tied_weight_that_differ_are_refused() -> None:
    base = load(FIXTURES / "gpt2.dynamo.onnx")
    raw = named_weights(unfolded("gpt2"))
    like = {key: torch.from_numpy(weight.array().copy()) for key, weight in raw.items()}
    head, embed = "model.lm_head.weight", "model.transformer.wte.weight"
    owner = head if head in like else embed
    assert recovered(base, like, base)[owner].array().shape == like[owner].shape
    stream = next(d for d in n2n.inspect(base) if d.width == like[owner].shape[1])
    wider = n2n.widen(base, {stream.name: 2 * stream.width})
    with pytest.raises(n2n.Refused, match="now differ"):
        recovered(wider, like, base)
    with pytest.raises(n2n.Refused, match=r"tied|now differ"):
        recovered(wider, {**like, head: like[owner], embed: like[owner]}, base)
    apart = {**like, head: like[owner].clone(), embed: like[owner].clone()}
    found = recovered(wider, apart, base)
    assert not np.array_equal(found[head].array(), found[embed].array())


# ---- what is given


def test_other_weights_than_the_files_are_refused() -> None:
    base, state = load(FIXTURES / "vit.dynamo.onnx"), original("vit")
    changed = {**state, "head.weight": state["head.weight"] + 1}
    with pytest.raises(n2n.Refused, match=r"head\.weight: the original file holds no such values"):
        recovered(base, changed, base)
    missing = {key: tensor for key, tensor in state.items() if key != "head.weight"}
    with pytest.raises(n2n.Refused, match=r"head\.weight.*equal none of the original"):
        recovered(base, missing, base)
    with pytest.raises(n2n.Refused, match="only one is given"):
        state_dict(base, state)
    other = load(FIXTURES / "mlp.ts17.onnx")
    with pytest.raises(n2n.Refused, match="has no such weight"):
        recovered(other, state, base)


def test_counters_and_masks_that_the_file_lacks_come_back_as_they_are() -> None:
    base, state = load(FIXTURES / "vit.dynamo.onnx"), dict(original("vit"))
    state["counter.num_batches_tracked"] = torch.tensor(7)
    state["mask"] = torch.tril(torch.ones(5, 5))
    state["masked_bias"] = torch.tensor(-1e4)
    found = recovered(base, state, base)
    for key in ("counter.num_batches_tracked", "mask", "masked_bias"):
        assert np.array_equal(found[key].array(), state[key].numpy())


def test_files_serve_as_well(tmp_path: Path) -> None:
    base, state = FIXTURES / "vit.dynamo.onnx", original("vit")
    from safetensors.torch import save_file

    save_file(state, tmp_path / "original.safetensors")
    grown = n2n.widen(load(base), {"blocks.0.mlp.fc1": 40})
    path = save_safetensors(
        grown, tmp_path / "grown.safetensors", tmp_path / "original.safetensors", base
    )
    found = state_dict(grown, state, base)
    assert found["blocks.0.mlp.fc1.weight"].shape == (40, 16)
    from safetensors.torch import load_file

    again = load_file(path)
    assert all(torch.equal(again[key], tensor) for key, tensor in found.items())
    assert again.keys() == state.keys()
