"""What an attribute may be: its type, the texts and the numbers that it takes.

    types("Conv", "", 17, "group")        # {AttributeProto.INT}
    texts("Pad", "", "mode")               # ("constant", "edge", "reflect", "wrap")
    LEAST["group"]                        # 1

Types and what must be there are those of onnx's schemas. These tell allowed texts and numbers only
in prose, and know nothing of com.microsoft, so both are told here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

from onnx import AttributeProto, NodeProto, TensorProto, defs

from onnx_net2net.operators import facts, registry

__all__ = [
    "ELEMENT_TYPES", "FINITE", "FLAGS", "KNOWN_TYPES", "LEAST", "choices", "domain_of", "required",
    "schema", "schema_of", "texts", "types",
]  # fmt: skip

A = AttributeProto
MICROSOFT = "com.microsoft"
LATEST = 2**31 - 1

# Texts that are no data but a choice, by attribute; records tell those of single operators.
_PADDING = ("", "NOTSET", "SAME_LOWER", "SAME_UPPER", "VALID")
_TRANSFORMS = ("LOGISTIC", "NONE", "PROBIT", "SOFTMAX", "SOFTMAX_ZERO")
_RULES = ("delta", "gated", "gated_delta", "linear")
_CACHES = ("NONE", "PER_CHANNEL", "PER_TENSOR")
_CHOICES: Mapping[str, Collection[str]] = {
    "aggregate_function": ("AVERAGE", "MAX", "MIN", "SUM"),
    "approximate": ("none", "tanh"),
    "auto_pad": _PADDING,
    "case_change_action": ("LOWER", "NONE", "UPPER"),
    "cast_to": ("TO_FLOAT", "TO_INT64", "TO_STRING"),
    "coordinate_transformation_mode": (
        "align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
        "tf_crop_and_resize", "tf_half_pixel_for_nn",
    ),
    "direction": ("bidirectional", "forward", "reverse"),
    "k_quant_type": _CACHES,
    "keep_aspect_ratio_policy": ("not_larger", "not_smaller", "stretch"),
    "kernel_type": ("LINEAR", "POLY", "RBF", "SIGMOID"),
    "map_form": ("DENSE", "SPARSE"),
    "nearest_mode": ("ceil", "floor", "round_prefer_ceil", "round_prefer_floor"),
    "nodes_modes": (
        "BRANCH_EQ", "BRANCH_GT", "BRANCH_GTE", "BRANCH_LEQ", "BRANCH_LT", "BRANCH_MEMBER",
        "BRANCH_NEQ", "LEAF",
    ),
    "norm": ("L1", "L2", "MAX"),
    "padding_mode": ("border", "reflection", "zeros"),
    "pixel_format": ("BGR", "Grayscale", "RGB"),
    "post_transform": _TRANSFORMS,
    "round_mode": ("down", "nearest", "up"),
    "update_rule": _RULES,
    "v_quant_type": _CACHES,
}  # fmt: skip
# Texts that are data: labels, words, patterns. Whoever uses them treats them as such.
DATA = frozenset({
    "cats_strings", "classes_strings", "classlabels_strings", "default_string", "delimiter",
    "equation", "keys_strings", "locale", "pattern", "pool_strings", "stopwords",
    "string_vocabulary", "value_string", "value_strings", "values_strings", "xs", "y", "zs",
})  # fmt: skip

# The smallest number that makes sense, for each number of a list.
LEAST: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "blocksize", "chunk_size", "dilations", "group", "groups", "hidden_size",
            "kernel_shape", "kv_num_heads", "max_gram_length", "min_gram_length",
            "num_groups", "num_outputs", "num_scan_inputs", "offset_group", "output_height",
            "output_width", "p", "pooled_shape", "q_num_heads", "sample_size", "size", "strides",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "K", "N", "batch_dims", "bits", "block_size", "num_heads", "output_padding", "perm",
            "qkv_hidden_sizes", "rotary_embedding_dim",
            "sampling_ratio", "softmax_precision",
        ),
        0,
    ),
}  # fmt: skip
# What is yes or no: of another number each program makes what it likes.
FLAGS = frozenset({
    "align_corners", "allowzero", "antialias", "causal", "ceil_mode", "center_point_box",
    "channels_last", "count_include_pad", "detect_negative", "detect_positive", "do_rotary",
    "exclude_outside", "exclusive", "fmod", "input_forget", "interleaved", "inverse", "is_causal",
    "keepdims", "largest", "linear_before_reset", "noop_with_empty_axes", "onesided", "periodic",
    "reverse", "saturate", "select_last_index", "sorted", "storage_order", "training_mode",
    "transA", "transB", "transBatchA", "transBatchB", "unidirectional", "upper",
})  # fmt: skip
# Factors and small terms: with NaN or infinity in them every runtime does something else.
FINITE = frozenset({
    "alpha", "beta", "bias", "cubic_coeff_a", "epsilon", "gamma", "lambd", "momentum",
    "norm_coefficient", "softcap", "spatial_scale",
})  # fmt: skip
# Numbers that stand for an element type; 0 leaves it open.
ELEMENT_TYPES = frozenset({
    "dtype", "output_datatype", "output_dtype", "precision", "softmax_precision", "stash_type",
    "to",
})  # fmt: skip
KNOWN_TYPES = frozenset(TensorProto.DataType.values())

# com.microsoft, and what onnxruntime adds to ONNX's own domain: types by attribute, which mean the
# same in (nearly) all operators.
_TYPES = {
    A.INT: """
        K N Nkv Nq accuracy_level align_corners axis bits block_size causal ceil_mode channels_last
        chunk_size count_include_pad custom do_rotary drop_states dtype embed_mode gather_axis group
        groups hidden_size input_forget interleaved is_bidirectional is_causal is_inner_broadcast
        is_packed_batching isinf_only isnan_only k keepdims kv_cache_bit_width kv_num_heads
        local_window_size mask_index_type ndim normalized num_heads onesided opset output_dtype
        past_present_share_buffer positive q_num_heads qk_output quantize_axis reset_on_eos
        rotary_embedding_dim rotary_interleaved seed signal_ndim size sliding_window_cache
        smooth_softmax stash_type storage_order to training_mode transA transB transBatchA
        transBatchB unidirectional upper weight_prepacked""",
    A.INTS: "axes border dilations kernel_shape output_padding output_shape pads "
    "qkv_hidden_sizes strides",
    A.FLOAT: "activation_alpha activation_beta activation_gamma alpha beta clip epsilon "
    "extrapolation_value mask_filter_value qk_norm_epsilon scale softcap temperature",
    A.FLOATS: "activation_params",
    A.STRING: "activation auto_pad direction k_quant_type mode padding_mode update_rule "
    "v_quant_type",
    A.STRINGS: "activations",
}
_TYPE_OF = {name: kind for kind, names in _TYPES.items() for name in names.split()}


def domain_of(node: NodeProto) -> str:
    """Return the domain of a node's operator, ``""`` for ONNX's own under either of its names."""
    return "" if node.domain == "ai.onnx" else node.domain


@cache
def schema(op: str, domain: str, version: int) -> defs.OpSchema | None:
    """Return onnx's schema of an operator at an opset, None where it has none."""
    try:
        return defs.get_schema(op, max(0, min(version, LATEST)), domain)
    except defs.SchemaError:
        return None


def schema_of(node: NodeProto, opsets: Mapping[str, int]) -> defs.OpSchema | None:
    """Return onnx's schema of a node's operator, None where it has none."""
    domain = domain_of(node)
    return schema(node.op_type, domain, opsets.get(domain, 1))


@cache
def types(op: str, domain: str, version: int, name: str) -> frozenset[int]:
    """Return the types that an attribute may have: none where nobody knows the attribute.

    Those of this opset or, where that lacks the attribute, of any.
    """
    known = schema(op, domain, version)
    if known is not None and name in known.attributes:
        return frozenset({_number(known.attributes[name])})
    kinds = _kinds(domain).get((op, name), frozenset())
    if kinds or defs.has(op, domain):
        return kinds
    common = _TYPE_OF if domain in ("", MICROSOFT) else {}
    kind = facts(op, domain).types.get(name, common.get(name))
    return frozenset() if kind is None else frozenset({int(kind)})


@cache
def required(op: str, domain: str, version: int) -> tuple[str, ...]:
    """Return the attributes that must be stated."""
    known = schema(op, domain, version)
    if known is not None:
        return tuple(sorted(n for n, a in known.attributes.items() if a.required))
    return tuple(facts(op, domain).required)


def texts(op: str, domain: str, name: str) -> Collection[str] | None:
    """Return the texts that an attribute may be, None where it is data."""
    return facts(op, domain).choices.get(name, _CHOICES.get(name))


@cache
def choices() -> dict[str, frozenset[str]]:
    """Return all texts that attributes of each name may be."""
    tables = [_CHOICES, *(record.choices for record in registry().values())]
    names = {name for table in tables for name in table}
    return {n: frozenset(text for t in tables for text in t.get(n, ())) for n in sorted(names)}


def _number(attribute: defs.OpSchema.Attribute) -> int:
    """Return the type as an AttributeProto has it."""
    return int(A.AttributeType.Value(str(attribute.type).rpartition(".")[2]))


@cache
def _kinds(domain: str) -> dict[tuple[str, str], frozenset[int]]:
    """Return the types of every attribute over all versions of its operator."""
    kinds: dict[tuple[str, str], frozenset[int]] = {}
    for known in defs.get_all_schemas_with_history():
        if known.domain == domain:
            for name, attribute in known.attributes.items():
                key = known.name, name
                kinds[key] = kinds.get(key, frozenset()) | {_number(attribute)}
    return kinds
