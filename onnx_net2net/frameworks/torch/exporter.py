"""A PyTorch module as an ONNX model that keeps what training needs.

    model = from_torch(module, (images,))
    "layer1.0.bn1.running_mean" in model.weights     # names, layouts and ties are the author's

PyTorch's default export folds BatchNorm into convolutions and turns the weights of Linear into
anonymous transposed copies. Here the exporter's optimiser sees parameters and statistics as
inputs of the graph, whose values it cannot know, and so leaves them and what reads them alone.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial, wraps
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import Dim
from torch.utils._pytree import tree_is_leaf, tree_map_only

from onnx_net2net.errors import Refused, UsageError
from onnx_net2net.frameworks.torch.dropout import Drawn, draws, inference, kept
from onnx_net2net.frameworks.unkept import RANDOM
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Absent, Computed, Model, Weight
from onnx_net2net.model.validation import check_model

__all__ = ["Dynamic", "arguments", "contained", "from_torch"]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_SMALL = 1024  # bytes; what is not larger stays in the skeleton

Dynamic = bool | Mapping[str, Any] | Sequence[Any] | None


def from_torch(
    module: nn.Module,
    example_inputs: Any,
    dynamic: Dynamic = None,
    *,
    opset: int | None = None,
    dropout: bool = True,
) -> Model:
    """Export ``module`` in inference mode; the model's weights are the module's own state.

    ``example_inputs`` is a tensor, a tuple of positional arguments, or a mapping of keyword
    arguments. Give axes that may vary a size of at least 2: the exporter takes a size of 0 or 1
    for a constant.

    ``dynamic`` says which axes may vary: None lets the batch (axis 0) of every input vary, and all
    axes of integer inputs (token sequences: with a fixed length, position tables would be folded
    away), so far as the module allows; False fixes every size; otherwise it is the
    ``dynamic_shapes`` of ``torch.export``, such as ``{"x": {0: "batch"}}``.

    Every parameter and persistent buffer that the network reads is an initializer under its
    name in ``module.state_dict()``; further names of tied ones are kept in the model's metadata.
    The module itself, its mode included, is left as it was; the model does not follow its further
    training. A module on the meta device gives a model whose weights are absent: of these only
    names, shapes and types are known.

    Calls of dropout, those of attention included, become Dropout nodes with the ratios of
    training mode, which do nothing in inference; ``to_torch`` drops by them again. Whatever else
    the module draws at random in training mode (stochastic depth, dropout of whole channels) is
    named by a warning and in the model's metadata. ``dropout=False`` leaves all of it out.
    Raises Refused where PyTorch cannot export the module,
    UsageError for arguments that do not fit it.
    """
    with _filled(module) as mode:
        args, kwargs = arguments(example_inputs if mode is None else _fake(mode, example_inputs))
        bound = _bound(module, args, kwargs)
        shapes = _dynamic_shapes(bound, dynamic)
        drawn = draws(module, args, kwargs) if dropout else Drawn()
        with _plain(module, bound), kept(module, drawn.ratios):
            program = _exported(module, *_by_name(bound, args, kwargs), shapes, opset)
        if drawn.ratios:
            _opened(program.model)
        tensors = {n: t for n, t in module.state_dict().items() if isinstance(t, Tensor)}
        state = {name for name, tensor in tensors.items() if tensor.is_floating_point()}
        graph = _optimised(program.model, state)
        if drawn.ratios:
            _closed(graph)
        if lost := drawn.message(module):
            warnings.warn(f"not kept of how it trains: {lost}", stacklevel=2)
            graph.metadata_props[RANDOM] = lost
        return _model(graph, _ties(module, set(graph.graph.initializers)))


@contextmanager
def _filled(module: nn.Module) -> Iterator[FakeTensorMode | None]:
    """Give parameters and buffers on the meta device a place that can be traced, for a while.

    Yields the mode in which the inputs must be, or None where no tensor is on that device.
    """
    held = [
        (tensors, name, tensor)
        for part in module.modules()
        for tensors in cast("tuple[dict[str, Any], ...]", (part._parameters, part._buffers))
        for name, tensor in tensors.items()
        if tensor is not None and tensor.is_meta
    ]
    if not held:
        yield None
        return
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes: dict[int, Tensor] = {}  # tied tensors stay one
    try:
        for tensors, name, tensor in held:
            if id(tensor) not in fakes:
                with mode:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                parameter = isinstance(tensor, nn.Parameter)
                fakes[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if parameter else fake
            tensors[name] = fakes[id(tensor)]
        yield mode
    finally:
        for tensors, name, tensor in held:
            tensors[name] = tensor


def _fake(mode: FakeTensorMode, example: Any) -> Any:
    """Return the inputs as that mode takes them."""
    return tree_map_only(Tensor, mode.from_tensor, example)


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments. Raises UsageError."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    if isinstance(example, Tensor):
        return (example,), {}
    raise UsageError(
        f"example inputs of type {type(example).__name__}",
        "give a tensor, a tuple of positional arguments, or a mapping of keyword arguments",
    )


def _dynamic_shapes(bound: inspect.BoundArguments, dynamic: Dynamic) -> Any:
    if dynamic is False:
        return None
    if dynamic is not None and dynamic is not True:
        return dynamic
    kinds = {name: p.kind for name, p in bound.signature.parameters.items()}
    free: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        shapes = _free(value)
        free |= shapes if kinds[name] is inspect.Parameter.VAR_KEYWORD else {name: shapes}
    return free


def _bound(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(f"the example inputs do not fit the module: {error}") from None


def _by_name(
    bound: inspect.BoundArguments, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass a dict that comes last by name: the exporter would take it for keyword arguments."""
    names = list(bound.signature.parameters)[: len(args)]
    if kwargs or not args or not isinstance(args[-1], dict) or len(names) < len(args):
        return args, kwargs
    if bound.signature.parameters[names[-1]].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        return args, kwargs
    return args[:-1], {names[-1]: args[-1]}


@contextmanager
def _plain(module: nn.Module, bound: inspect.BoundArguments) -> Iterator[None]:
    """Give ``forward`` every argument under its own name and plain containers as results."""
    forward, own = module.forward, "forward" in vars(module)
    parameters = [
        named
        for name, parameter in bound.signature.parameters.items()
        for named in (
            [parameter]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
            else [parameter.replace(name=n, kind=_KEYWORD) for n in bound.arguments.get(name, ())]
        )
    ]

    @wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return contained(forward(*args, **kwargs))

    plain.__signature__ = bound.signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    module.forward = plain
    try:
        yield
    finally:
        del module.forward
        if own:
            module.forward = forward


def contained(value: Any) -> Any:
    """Return results with names (dataclasses, the outputs of transformers) as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        items = value if isinstance(value, Mapping) else vars(value)
        return {k: contained(v) for k, v in items.items() if v is not None}
    if type(value) in (list, tuple):
        return type(value)(map(contained, value))
    if type(value) in (dict, OrderedDict):
        return type(value)((k, contained(v)) for k, v in value.items())
    return value


def _free(value: Any) -> Any:
    """Return which axes of an input may vary by default, nested as the input is."""
    if isinstance(value, Tensor):
        whole = not value.is_floating_point() and value.dtype != torch.bool
        return dict.fromkeys(range(value.dim() if whole else min(value.dim(), 1)), Dim.AUTO)
    if tree_is_leaf(value):
        return None
    if is_dataclass(value):
        fields = value if isinstance(value, Mapping) else vars(value)
        return [_free(item) for item in fields.values() if item is not None]
    if isinstance(value, Mapping):
        return {key: _free(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_free(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return None


def _exported(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any, opset: int | None
) -> Any:
    try:
        with inference(module), _quiet():
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=shapes,
                opset_version=opset,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise Refused(
            type(module).__name__,
            f"PyTorch cannot export it: {type(cause).__name__}: {_first_line(cause)}",
            "make torch.export.export(module, inputs) work first; this error has its cause",
        ) from error
    assert program is not None
    return program


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on other packages and on its own inner workings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _optimised(model: ir.Model, state: set[str]) -> ir.Model:
    """Run the exporter's own optimiser, which may not look at ``state``."""
    graph = model.graph
    hidden = {name: graph.initializers[name] for name in list(graph.initializers) if name in state}
    contents = {name: value.const_value for name, value in hidden.items()}
    for name, value in hidden.items():
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    optimizer.optimize(model)
    for name, value in hidden.items():
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = contents[name]
            graph.register_initializer(value)
    return model


def _opened(model: ir.Model) -> None:
    """Say of each Dropout that it drops, so that no optimiser takes it for nothing."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in list(graph.all_nodes()):
            if node.op_type == "Dropout" and not node.domain and node.graph is not None:
                yes = ir.node("Constant", [], {"value": ir.tensor(np.array(True))})
                node.graph.insert_before(node, yes)
                node.resize_inputs(3)
                node.replace_input_with(2, yes.outputs[0])


def _closed(model: ir.Model) -> None:
    """Set each Dropout to inference, where it does nothing."""
    for node in model.graph.all_nodes():
        if node.op_type == "Dropout" and not node.domain:
            node.resize_inputs(2)
    RemoveUnusedNodesPass()(model)


def _ties(module: nn.Module, kept: set[str]) -> dict[str, str]:
    """Return other names of the initializers: {alias: initializer}."""
    groups: dict[int, list[str]] = {}
    named = (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    )
    for name, tensor in named:
        groups.setdefault(id(tensor), []).append(name)
    return {
        alias: owner
        for names in groups.values()
        for owner in names
        if owner in kept
        for alias in names
        if alias not in kept
    }


def _model(source: ir.Model, ties: Mapping[str, str]) -> Model:
    """Copy the big weights beside the skeleton, whatever its size."""
    big: dict[str, Weight] = {}
    for name, value in source.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if isinstance(getattr(tensor, "raw", None), FakeTensor):
            big[name] = Absent(name, int(tensor.dtype), tuple(tensor.shape.numpy()))
        elif tensor.nbytes > _SMALL and tensor.dtype != ir.DataType.STRING:
            array = tensor.numpy().copy()
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            big[name] = Computed(name, kind, array.shape, partial(_same, array))
        if name in big:
            value.const_value = ir.tensor([0.0], name=name)
    if ties:
        source.metadata_props[TIES] = json.dumps(ties, separators=(",", ":"))
    proto = ir.serde.serialize_model(source)
    _name_sizes(proto)
    for entry in proto.graph.initializer:
        if entry.name in big:
            dtype, dims = big[entry.name].dtype, big[entry.name].shape
            entry.CopyFrom(onnx.TensorProto(name=entry.name, data_type=dtype, dims=dims))
    check_model(proto)
    return Model(proto, big)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _name_sizes(proto: onnx.ModelProto) -> None:
    """Give the exporter's numbered symbols (s77) the names that people use."""
    names: dict[str, str] = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        for axis, dim in enumerate(tensor.shape.dim):
            if re.fullmatch(r"s\d+", dim.dim_param) and dim.dim_param not in names:
                names[dim.dim_param] = _unused(_size_name(value.name, axis, tensor), names)
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(names) + r")\b")
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = pattern.sub(lambda symbol: names[symbol[0]], dim.dim_param)


def _size_name(name: str, axis: int, tensor: onnx.TypeProto.Tensor) -> str:
    if axis == 0:
        return "batch"
    tokens = tensor.elem_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return "sequence" if tokens and axis == 1 else f"{name}_{axis}"


def _unused(name: str, names: Mapping[str, str]) -> str:
    taken = set(names.values())
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 1000))) if n not in taken)
