"""A PyTorch module as an ONNX model that keeps what training needs.

    model = from_torch(module, (images,))
    "layer1.0.bn1.running_mean" in model.weights     # names, layouts and ties are the author's

PyTorch's default export folds BatchNorm into convolutions and turns the weights of Linear into
anonymous transposed copies. Here the exporter's optimiser sees parameters and statistics as
inputs of the graph, whose values it cannot know, and so leaves them and what reads them alone.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tensor_adapters import TorchTensor
from onnxscript import optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

from onnx_net2net.errors import Refused
from onnx_net2net.frameworks.absorb import COUNTERS
from onnx_net2net.frameworks.roles import KIND, PERSISTENT
from onnx_net2net.frameworks.torch.calls import (
    Dynamic,
    arguments,
    bind,
    by_name,
    contained,
    doubled,
    dynamic_shapes,
    plain_call,
)
from onnx_net2net.frameworks.torch.dropout import RAISED, draws, inference, kept, unchanged
from onnx_net2net.frameworks.unkept import RANDOM, Drawn
from onnx_net2net.model.history import TIES
from onnx_net2net.model.model import Absent, Computed, Model, Weight
from onnx_net2net.model.validation import check_model

_SMALL = 1024  # bytes; what is not larger stays in the skeleton


def from_torch(
    module: nn.Module,
    example_inputs: Any,
    dynamic: Dynamic = None,
    *,
    opset: int | None = None,
    dropout: bool = True,
    unread: bool = True,
) -> Model:
    """Export ``module`` in inference mode; the model's weights are the module's own state.

    ``example_inputs`` is a tensor, a tuple of positional arguments, or a mapping of keyword
    arguments.

    ``dynamic`` says which axes may vary: None lets the batch (axis 0) of every input vary, and all
    axes of integer inputs (token sequences: with a fixed length, position tables would be folded
    away), so far as the module allows; False fixes every size; otherwise it is the
    ``dynamic_shapes`` of ``torch.export``, such as ``{"x": {0: "batch"}}``. PyTorch takes a size
    of 1 for a constant: by default such axes are traced at size 2, or are fixed where the module
    does not run so or gives other axes; give others that may vary a size of at least 2.

    Every parameter and persistent buffer is an initializer under its name in
    ``module.state_dict()``, also where the network does not read it (ONNX Runtime warns that it
    drops these), unless ``unread`` is False; only counts of batches are left out. Further names of
    tied ones are kept in the metadata. The module, its mode included, is left as it was; the model
    does not follow its further training. A module on the meta device gives a model whose weights
    are absent: of these only names, shapes and types are known.

    Calls of dropout, those of attention included, become Dropout nodes with the ratios of
    training mode, which do nothing in inference; ``to_torch`` drops by them again. Whatever else
    the module draws at random in training mode (stochastic depth, dropout of whole channels) is
    named by a warning and in the model's metadata. ``dropout=False`` leaves all of it out.
    Raises Refused where PyTorch cannot export the module, UsageError for arguments that do not fit.
    """
    with _filled(module) as mode:
        example = example_inputs if mode is None else _fake(mode, example_inputs)
        trace = partial(_traced, module, dynamic=dynamic, opset=opset, dropout=dropout)
        larger = doubled(example) if dynamic is None or dynamic is True else None
        program, drawn = trace(example) if larger is None else _varied(trace, example, larger)
        if drawn.ratios:
            _opened(program.model)
        state = _opaque(module)
        graph = _optimised(program.model, state)
        if drawn.ratios:
            _closed(graph)
        if unread:
            _add_unread(graph.graph, module)
        if lost := drawn.message():
            warnings.warn(f"not kept of how it trains: {lost}", stacklevel=2)
            graph.metadata_props[RANDOM] = lost
        weights = graph.graph.initializers
        ties = _ties(module, set(weights))
        # One parameter, wherever it is read and whatever it holds.
        ties |= {name: name for name in state if name in weights and len(weights[name].uses()) > 1}
        return _model(graph, ties)


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


def _traced(
    module: nn.Module, example: Any, *, dynamic: Dynamic, opset: int | None, dropout: bool
) -> tuple[Any, Drawn]:
    """Return PyTorch's export by these inputs, and what the module draws at random."""
    args, kwargs = arguments(example)
    bound = bind(module, args, kwargs)
    shapes = dynamic_shapes(bound, dynamic)
    drawn = draws(module, args, kwargs) if dropout else Drawn()
    with plain_call(module, bound) as objects, kept(module, drawn.ratios):
        return _exported(module, *by_name(bound, args, kwargs), shapes, opset, objects), drawn


def _varied(trace: partial[tuple[Any, Drawn]], example: Any, larger: Any) -> tuple[Any, Drawn]:
    """Trace by ``larger`` inputs, if the module does the same for them as for the ``example``."""
    (module,) = trace.args
    try:
        alike = _steps(module, larger) == _steps(module, example)
    except RAISED:
        alike = False
    if alike:
        with suppress(Refused):
            return trace(larger)
    return trace(example)


class _Steps(TorchFunctionMode):
    """Notes every function of PyTorch that is called, its switches, and the axes of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str | None, list[bool], list[int]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        switches = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, bool)]
        self.steps.append((resolve_name(func), switches, _ranks(result)))
        return result


def _steps(module: nn.Module, example: Any) -> Any:
    """Return what ``module`` calls for these inputs, and how many axes its results have.

    A module that asks whether a size is 1 shows it here: what it does for 2 is something else.
    """
    args, kwargs = arguments(example)
    with unchanged(module), inference(module), torch.no_grad(), _Steps() as noted:
        results = contained(module(*args, **kwargs))
    return noted.steps, _ranks(results)


def _ranks(results: Any) -> list[int]:
    return [leaf.dim() for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]


def _exported(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: Any,
    opset: int | None,
    objects: Mapping[str, str],
) -> Any:
    """Return PyTorch's export. ``objects`` are what the module returned beside tensors."""
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
        if objects:
            held = ", ".join(f"{place} is of type {kind}" for place, kind in objects.items())
            raise Refused(
                type(module).__name__,
                f"it returns more than tensors, which no exported network can: {held}",
                "let forward return tensors only, in tuples or dicts: turn such results off in the "
                "module's configuration or arguments, or export a module that calls it and "
                "returns what is needed",
            ) from error
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


def _opaque(module: nn.Module) -> set[str]:
    """Return the names of state that training changes, or whose contents are not there."""
    return {
        name
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor)
        and (tensor.is_floating_point() or isinstance(tensor, FakeTensor))
    }


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


def _add_unread(graph: ir.Graph, module: nn.Module) -> None:
    """Add what else the state dict of ``module`` holds, under names that nothing else has."""
    state = {n: t for n, t in module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    known = {id(tensor) for name, tensor in state.items() if name in graph.initializers}
    values = (*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs))
    taken = {value.name for value in values}
    for name, tensor in state.items():
        possible = not tensor.is_complex() and not fnmatchcase(name, COUNTERS)
        if possible and name not in taken and id(tensor) not in known:
            known.add(id(tensor))
            kind = "PARAMETER" if isinstance(tensor, nn.Parameter) else "BUFFER"
            contents = TorchTensor(tensor, name=name)
            value = ir.Value(
                name=name,
                type=ir.TensorType(contents.dtype),
                shape=contents.shape,
                const_value=contents,
                metadata_props={KIND: kind, PERSISTENT: "True"},
            )
            graph.register_initializer(value)


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
