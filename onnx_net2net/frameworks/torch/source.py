"""The text of the written ``model.py``.

    text = source(translate(Program(model)), "resnet")

The functions in :mod:`.kernels` that the model calls are copied into it, so that it runs with
PyTorch alone.
"""

from __future__ import annotations

import re

from onnx_net2net.frameworks.codegen import formatted
from onnx_net2net.frameworks.layout import wrapped
from onnx_net2net.frameworks.torch.code_check import check
from onnx_net2net.frameworks.torch.library import kernels, reserved
from onnx_net2net.frameworks.torch.translation import Translation

CLASS = "Model"


def source(translation: Translation, name: str) -> str:
    """Return the whole file. ``name`` says in its docstring what it is.

    Raises Refused where the code would hold anything that no table writes (see :mod:`.code_check`).
    """
    functions = _needed(translation.kernels)
    forward = translation.forward
    for value, parameter in forward.inputs.items():
        if parameter in functions:  # an input must not hide a function that the code calls
            forward.inputs[value] = f"{parameter}_"
    parameters = [f"{forward.inputs[v]}: torch.Tensor" for v in sorted(forward.inputs)]
    body = formatted(forward.lines(reserved()), 8)
    result = "torch.Tensor" if len(translation.program.main.outputs) == 1 else "tuple"
    head = wrapped(f"def forward({', '.join(['self', *parameters])}) -> {result}:", 4)
    build = formatted(translation.tree.lines(), 8)
    inputs = ", ".join(forward.inputs[v] for v in sorted(forward.inputs))
    around = [
        *([BRANCH] if translation.tree.uses_branches() else []),
        *(kernels()[function][0] for function in functions),
        LOAD.replace("%CONSTANTS%", CONSTANTS if translation.stored else ""),
    ]
    parts = [
        f'"""{name}: its weights lie in model.safetensors beside this file.\n\n'
        "Run it to see its layers, or use it from another program:\n\n"
        "    from model import load\n\n"
        f"    model = load()\n"
        f"    result = model({inputs})\n"
        '"""',
        "from __future__ import annotations",
        "%IMPORTS%",
        *around[:-1],
        _class(build, head, body, bool(translation.stored)),
        around[-1],
    ]
    text = "\n\n\n".join(parts[3:])
    whole = "\n\n".join([parts[0], parts[1], _imports(text), "\n" + text])
    program = translation.program
    names = {part for path in program.paths.values() for part in path.split(".")}
    equations = {
        "".join(str(step.attributes["equation"]).split())
        for step in program.main.every_step()
        if step.op == "Einsum" and not step.domain
    }
    check(whole, around, names | translation.tree.constants.keys(), equations)
    return whole.rstrip() + "\n"


def _class(build: str, head: str, body: str, stored: bool) -> str:
    lines = [
        f"class {CLASS}(nn.Module):",
        '    """The network, layer by layer as the ONNX file has it."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(["        constants = stored_constants()"] if stored else []),
        *([build] if build else []),
        "",
        head,
        body,
    ]
    return "\n".join(lines)


def _needed(names: list[str]) -> list[str]:
    """Return kernels, and what they call, callees first."""
    needed: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in needed:
            for other in sorted(kernels()[name][1] & kernels().keys() - {name}):
                visit(other)
            needed[name] = None

    for name in names:
        visit(name)
    return list(needed)


def _imports(text: str) -> str:
    """Return the imports that the text needs."""
    text = re.sub(r'"""[\s\S]*?"""', "", text)
    used = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", text))
    lines = ["import math"] if "math" in used else []
    abstract = sorted({"Callable", "Sequence"} & used)
    lines += [f"from collections.abc import {', '.join(abstract)}"] if abstract else []
    lines += ["from pathlib import Path"]
    lines += ["from typing import Any", ""] if "Any" in used else [""]
    lines += ["import torch"]
    lines += ["import torch.nn.functional as F"] if "F" in used else []
    lines += ["from safetensors.torch import load_file"]
    lines += ["from torch import Tensor, nn"] if "Tensor" in used else ["from torch import nn"]
    return "\n".join(lines)


BRANCH = '''def branch(**members: nn.Module | torch.Tensor) -> nn.Module:
    """A module that only holds others, parameters and buffers."""
    module = nn.Module()
    for name, member in members.items():
        if isinstance(member, nn.Module):
            module.add_module(name, member)
        elif isinstance(member, nn.Parameter):
            module.register_parameter(name, member)
        else:
            module.register_buffer(name, member)
    return module'''

CONSTANTS = '''def stored_constants() -> dict[str, torch.Tensor]:
    """Tables and masks that are not trained."""
    return load_file(Path(__file__).with_name("constants.safetensors"))


'''

LOAD = '''%CONSTANTS%def load(path: str | Path | None = None) -> Model:
    """The network with its weights, by default those beside this file, in eval mode."""
    model = Model()
    model.load_state_dict(load_file(path or Path(__file__).with_name("model.safetensors")))
    return model.eval()


if __name__ == "__main__":
    network = load()
    print(network)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters")'''
