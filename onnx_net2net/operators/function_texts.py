"""The texts of operators that ONNX Runtime's optimisers write. See `functions.py`.

They use forms of operators that are the same in all opsets from 11 on (no axes of ReduceSum or
Unsqueeze, which moved from attributes to operands), so that they fit a model of any of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_net2net.operators.attention_texts import (
    ATTENTION,
    GROUP_QUERY_ATTENTION,
    MULTI_HEAD_ATTENTION,
    ROTARY_EMBEDDING,
)

OPSET = 24  # that knows all operators that the texts name

# An activation "a" of "s", its parameters @{0} and @{1}.
_ACTIVATION = """
    y = Identity (s)                                            # activation=
    low = Constant <value_float: float = @{0}> ()               # activation=Clip
    high = Constant <value_float: float = @{1}> ()              # activation=Clip
    least = CastLike (low, s)                                   # activation=Clip
    most = CastLike (high, s)                                   # activation=Clip
    y = Clip (s, least, most)                                   # activation=Clip
    y = Elu <alpha = @{0}> (s)                           # activation=Elu
    y = HardSigmoid <alpha = @{0}, beta = @{1}> (s)  # activation=HardSigmoid
    y = LeakyRelu <alpha = @{0}> (s)                     # activation=LeakyRelu
    y = Relu (s)                                                # activation=Relu
    y = Sigmoid (s)                                             # activation=Sigmoid
    y = Softplus (s)                                            # activation=Softplus
    y = Softsign (s)                                            # activation=Softsign
    y = Tanh (s)                                                # activation=Tanh
    y = ThresholdedRelu <alpha = @{0}> (s)               # activation=ThresholdedRelu
"""

_ACTIVATIONS = [
    """Gelu (x) => (y) {
    y = Gelu (x)
}""",
    """BiasGelu (x, bias) => (y) {
    sum = Add (x, bias)
    y = Gelu (sum)
}""",
    """FastGelu (x, bias) => (y) {
    sum = Add (x, bias)         # bias
    sum = Identity (x)          # not bias
    y = Gelu <approximate = "tanh"> (sum)
}""",
    """QuickGelu <alpha: float = 1.702> (x) => (y) {
    y = Swish <alpha = @alpha> (x)
}""",
    """GatedAdd (a, b, gate) => (y) {
    gated = Mul (b, gate)
    y = Add (a, gated)
}""",
]

_NORMS = [
    """SkipLayerNormalization <epsilon: float = 1e-12>
    (x, skip, scale, beta, bias) => (y, mean, deviation, sum) {
    both = Add (x, skip)
    sum = Add (both, bias)      # bias
    sum = Identity (both)       # not bias
    y = LayerNormalization <axis = -1, epsilon = @epsilon> (sum, scale, beta)
}""",
    """SkipSimplifiedLayerNormalization <epsilon: float = 1e-12>
    (x, skip, scale, bias) => (y, mean, deviation, sum) {
    both = Add (x, skip)
    sum = Add (both, bias)      # bias
    sum = Identity (both)       # not bias
    y = RMSNormalization <axis = -1, epsilon = @epsilon> (sum, scale)
}""",
    """EmbedLayerNormalization <epsilon: float = 1e-12, mask_index_type: int = 0>
    (ids, kinds, words, places, segments, scale, beta, mask, at) => (y, lengths, sum) {
    word = Gather (words, ids)
    place = Gather (places, at)                     # at
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    shape = Shape (ids)
    batch = Gather (shape, zero)
    length = Gather (shape, one)
    place = Slice (places, zero, length, zero)      # not at
    plain = Add (word, place)
    segment = Gather (segments, kinds)              # kinds
    sum = Add (plain, segment)                      # kinds
    sum = Identity (plain)                          # not kinds
    y = LayerNormalization <axis = -1, epsilon = @epsilon> (sum, scale, beta)
    lengths = Einsum <equation = "bs->b"> (mask)    # mask, mask_index_type=0
    lengths = ConstantOfShape <value = int32[1] {0}> (batch)    # not mask
}""",
]  # fmt: skip

_PRODUCTS = [
    """FusedConv <activation: string = "", activation_params, auto_pad, dilations, group,
    kernel_shape, pads, strides>
    (x, w, b, z) => (y) {
    c = Conv <auto_pad = @auto_pad, dilations = @dilations, group = @group,
        kernel_shape = @kernel_shape, pads = @pads, strides = @strides> (x, w, b)
    s = Add (c, z)              # z
    s = Identity (c)            # not z
"""
    + _ACTIVATION.format("activation_params_0", "activation_params_1") + "}",
    """FusedGemm <activation: string = "", activation_alpha, activation_beta, alpha, beta, transA,
    transB> (a, b, c) => (y) {
    s = Gemm <alpha = @alpha, beta = @beta, transA = @transA, transB = @transB> (a, b, c)
"""
    + _ACTIVATION.format("activation_alpha", "activation_beta") + "}",
]  # fmt: skip
# The last two axes swapped; transBatch moves the first axis before the last one beforehand.
_TURNED = """
    {0}t = Identity ({0})                           # not trans{1}, not transBatch{1}
    {0}t = Identity ({0})                           # {0}:1
    {0}t = Transpose <perm = [1, 0]> ({0})          # {0}:2, trans{1}, not transBatch{1}
    {0}t = Transpose <perm = [0, 2, 1]> ({0})       # {0}:3, trans{1}, not transBatch{1}
    {0}t = Transpose <perm = [0, 1, 3, 2]> ({0})    # {0}:4, trans{1}, not transBatch{1}
    {0}t = Transpose <perm = [1, 0, 2]> ({0})       # {0}:3, not trans{1}, transBatch{1}
    {0}t = Transpose <perm = [1, 2, 0]> ({0})       # {0}:3, trans{1}, transBatch{1}
    {0}t = Transpose <perm = [1, 2, 0, 3]> ({0})    # {0}:4, not trans{1}, transBatch{1}
    {0}t = Transpose <perm = [1, 2, 3, 0]> ({0})    # {0}:4, trans{1}, transBatch{1}
"""
_PRODUCTS += [
    name
    + """ <alpha: float = 1, transA: int = 0, transB: int = 0, transBatchA: int = 0,
    transBatchB: int = 0> (a, b) => (y) {"""
    + _TURNED.format("a", "A")
    + _TURNED.format("b", "B")
    + """
    y = MatMul (at, bt)                                 # alpha=1
    product = MatMul (at, bt)                           # not alpha=1
    number = Constant <value_float: float = @alpha> ()
    factor = CastLike (number, product)
    y = Mul (product, factor)                           # not alpha=1
}"""
    for name in ("FusedMatMul", "TransposeMatMul")
]  # fmt: skip

_QUANTIZED = [
    """QuantizeLinear <axis: int = 1> (x, scale, zero) => (y) {
    y = QuantizeLinear <axis = @axis> (x, scale, zero)
}""",
    """DequantizeLinear <axis: int = 1> (x, scale, zero) => (y) {
    y = DequantizeLinear <axis = @axis> (x, scale, zero)
}""",
    """MatMulIntegerToFloat (a, b, a_scale, b_scale, a_zero, b_zero, bias) => (y) {
    whole = MatMulInteger (a, b, a_zero, b_zero)
    real = CastLike (whole, a_scale)
    scale = Mul (a_scale, b_scale)
    product = Mul (real, scale)
    y = Add (product, bias)         # bias
    y = Identity (product)          # not bias
}""",
    """DynamicQuantizeMatMul (x, b, b_scale, b_zero, bias) => (y) {
    a, a_scale, a_zero = DynamicQuantizeLinear (x)
    whole = MatMulInteger (a, b, a_zero, b_zero)
    real = CastLike (whole, a_scale)
    scale = Mul (a_scale, b_scale)
    product = Mul (real, scale)
    y = Add (product, bias)         # bias
    y = Identity (product)          # not bias
}""",
]
_QUANTIZED += [
    f"""QLinear{name} (a, a_scale, a_zero, b, b_scale, b_zero, scale, zero) => (y) {{
    x = DequantizeLinear (a, a_scale, a_zero)
    z = DequantizeLinear (b, b_scale, b_zero)
    result = {name} (x, z)
    y = QuantizeLinear (result, scale, zero)
}}"""
    for name in ("Add", "Mul")
]
_QUANTIZED += [
    f"""QLinear{name} {parameters} (a, a_scale, a_zero, scale, zero) => (y) {{
    x = DequantizeLinear (a, a_scale, a_zero)
    result = {call} (x)
    y = QuantizeLinear (result, scale, zero)
}}"""
    for name, parameters, call in (
        ("LeakyRelu", "<alpha: float = 0.01>", "LeakyRelu <alpha = @alpha>"),
        ("Sigmoid", "", "Sigmoid"),
    )
]

_TRIANGLE = """Trilu <upper: int = 1> (x, k) => (y) {
    y = Trilu <upper = @upper> (x, k)
}"""

TEXTS: Mapping[str, Sequence[str]] = {
    "": [
        """SimplifiedLayerNormalization <axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1>
    (x, scale) => (y, inverse) {
    y = RMSNormalization <axis = @axis, epsilon = @epsilon> (x, scale)     # stash_type=1
}"""
    ],
    "com.microsoft": [
        *(*_ACTIVATIONS, *_NORMS, *_PRODUCTS, *_QUANTIZED, _TRIANGLE),
        *(ATTENTION, GROUP_QUERY_ATTENTION, MULTI_HEAD_ATTENTION, ROTARY_EMBEDDING),
    ],
}
