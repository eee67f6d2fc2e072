"""Dotted paths in a module tree, made of any names.

>>> unique_paths(["layer1.0.conv.weight", "up/kernel:0", "a.b", "a"])["a"]
'a_2'
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Attributes that every module has (torch.nn.Module, torch.fx.GraphModule), so that no part of a
# path can be called so.
TAKEN = frozenset(
    (
        "T_destination", "add_module", "add_submodule", "apply", "bfloat16", "buffers",
        "call_super_init", "children", "code", "compile", "cpu", "cuda",
        "delete_all_unused_submodules", "delete_submodule", "double", "dump_patches", "eval",
        "extra_repr", "float", "forward", "get_buffer", "get_extra_state", "get_parameter",
        "get_submodule", "graph", "half", "ipu", "load_state_dict", "meta", "modules", "mtia",
        "named_buffers", "named_children", "named_modules", "named_parameters", "parameters",
        "print_readable", "recompile", "register_backward_hook", "register_buffer",
        "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
        "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook", "register_module", "register_parameter",
        "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_",
        "set_extra_state", "set_submodule", "shape_env", "share_memory", "state_dict", "to",
        "to_empty", "to_folder", "train", "training", "type", "xpu", "zero_grad",
    )
)  # fmt: skip
EMPTY = "tensor"


def unique_paths(names: Iterable[str]) -> dict[str, str]:
    """A path for each name, the first named having the first choice; see :func:`roles.paths`."""
    leaves: set[str] = set()
    folders: set[str] = set()
    found: dict[str, str] = {}
    for name in names:
        parts = _parts(name)
        for end in range(1, len(parts)):
            parts[end - 1] = _free(parts[:end], leaves)
            folders.add(".".join(parts[:end]))
        parts[-1] = _free(parts, leaves | folders)
        found[name] = ".".join(parts)
        leaves.add(found[name])
    return found


def _parts(name: str) -> list[str]:
    """The name's parts, each fit to be an attribute of a module."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    parts = plain.split(".")
    return [f"{part}_" if part in TAKEN else part for part in parts if part] or [EMPTY]


def _free(parts: list[str], taken: set[str]) -> str:
    """The last part, with a number where the path is taken."""
    *folder, last = parts
    found, count = last, 1
    while ".".join((*folder, found)) in taken:
        count += 1
        found = f"{last}_{count}"
    return found
