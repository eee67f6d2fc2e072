"""The texts of fused attention: projections, caches and masks around products and a softmax.

Queries, keys and values become (batch, head, place, entry). What is added to their scores hides
padding by ``mask_filter_value``, and keys that are later than a query by infinity.

Sizes are read off weights where they can be: those are known where activations' are not.
"""

from __future__ import annotations

# Numbers, the shape that splits heads off, and the one that merges them.
_SHAPES = """
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    last = Constant <value = int64[1] {-1}> ()
    zeros = Constant <value = int64[2] {0, 0}> ()
    heads = Constant <value_ints: ints = @num_heads> ()
    split = Concat <axis = 0> (zeros, heads, last)
    merged = Constant <value = int64[3] {0, 0, -1}> ()
    start = Constant <value = int64 {0}> ()
    step = Constant <value = int64 {1}> ()
"""

# Scaled products of "query" and "key"; "of_query" is the size of all heads.
_PRODUCT = """
    flipped = Transpose <perm = [0, 1, 3, 2]> (key)
    product = MatMul (query, flipped)
    number = Constant <value_float: float = @scale> ()      # scale
    entries = Div (of_query, heads)                         # not scale
    size = Cast <to = 1> (entries)                          # not scale
    root = Sqrt (size)                                      # not scale
    number = Reciprocal (root)                              # not scale
    factor = CastLike (number, product)
    scaled = Mul (product, factor)
"""

# From "query", "new_key", "new_value" by head to "by_place"; caches are "past_key", "past_value".
_ATTEND = (
    """
    key = Concat <axis = 2> (past_key, new_key)             # past_key
    value = Concat <axis = 2> (past_value, new_value)       # past_key
    key = Identity (new_key)                                # not past_key
    value = Identity (new_value)                            # not past_key
    query_shape = Shape (query)
    key_shape = Shape (key)
    length = Gather (query_shape, two)
    total = Gather (key_shape, two)
"""
    + _PRODUCT
    + """
    end = Squeeze (total)
    columns = Range (start, end, step)
    none = Constant <value = float {0}> ()
    nothing = CastLike (none, query)
    filter = Constant <value_float: float = @mask_filter_value> ()
    low = CastLike (filter, query)
    batch = Gather (query_shape, zero)
    by_sample = Concat <axis = 0> (batch, one, one, one)    # mask:1, not unidirectional
    lengths = Reshape (mask, by_sample)                     # mask:1, not unidirectional
    ends = Cast <to = 7> (lengths)                          # mask:1, not unidirectional
    kept = Less (columns, ends)                             # mask:1, not unidirectional
    by_token = Constant <value = int64[4] {0, 1, 1, -1}> ()
    tokens = Reshape (mask, by_token)                       # mask:2
    kept = Cast <to = 9> (tokens)                           # mask:2
    mask_shape = Shape (mask)                               # mask:3
    queries = Gather (mask_shape, one)                      # mask:3
    by_row = Concat <axis = 0> (zero, one, queries, last)   # mask:3
    rows = Reshape (mask, by_row)                           # mask:3
    kept = Cast <to = 9> (rows)                             # mask:3
    padding = Where (kept, nothing, low)                    # kept

    past_shape = Shape (past_key)                           # past_key
    before = Gather (past_shape, two)                       # past_key
    before = Identity (zero)                                # not past_key
    from = Squeeze (before)
    until = Add (before, length)
    to = Squeeze (until)
    places = Range (from, to, step)
    column = Constant <value = int64[2] {-1, 1}> ()
    place = Reshape (places, column)
    later = Greater (columns, place)
    final = Sub (until, one)
    not_final = Less (place, final)
    hidden = And (later, not_final)
    infinity = Constant <value = float {-inf}> ()
    never = CastLike (infinity, query)
    future = Where (hidden, never, nothing)                 # unidirectional

    given = Add (padding, scores)                           # padding, scores
    given = Identity (padding)                              # padding, not scores
    given = Identity (scores)                               # not padding, scores
    bias = Add (given, future)                              # given, future
    bias = Identity (given)                                 # given, not future
    bias = Identity (future)                                # not given, future
    biased = Add (scaled, bias)                             # bias
    biased = Identity (scaled)                              # not bias
    weights = Softmax <axis = -1> (biased)
    attended = MatMul (weights, value)
    by_place = Transpose <perm = [0, 2, 1, 3]> (attended)
"""
)

ATTENTION = (
    """Attention <num_heads, qkv_hidden_sizes, do_rotary: int = 0,
    mask_filter_value: float = -10000, past_present_share_buffer: int = 0, scale: float = 0,
    unidirectional: int = 0> (x, w, b, mask, past, scores) => (y, present) {"""
    + _SHAPES
    + """
    product_of_all = MatMul (x, w)
    all = Add (product_of_all, b)                           # b
    all = Identity (product_of_all)                         # not b
    of_query = Constant <value_ints: ints = @qkv_hidden_sizes_0> ()    # qkv_hidden_sizes
    of_key = Constant <value_ints: ints = @qkv_hidden_sizes_1> ()      # qkv_hidden_sizes
    shape = Shape (w)
    width = Gather (shape, one)
    of_query = Div (width, three)                           # not qkv_hidden_sizes
    of_key = Identity (of_query)                            # not qkv_hidden_sizes
    both = Add (of_query, of_key)
    query_part = Slice (all, zero, of_query, two)
    key_part = Slice (all, of_query, both, two)
    value_part = Slice (all, both, width, two)
    query_split = Reshape (query_part, split)
    key_split = Reshape (key_part, split)
    value_split = Reshape (value_part, split)
    query = Transpose <perm = [0, 2, 1, 3]> (query_split)
    new_key = Transpose <perm = [0, 2, 1, 3]> (key_split)
    new_value = Transpose <perm = [0, 2, 1, 3]> (value_split)
    past_key = Gather <axis = 0> (past, start)              # past
    past_value = Gather <axis = 0> (past, step)             # past
"""
    + _ATTEND
    + """
    stacked = Concat <axis = 0> (one, key_shape)
    first = Reshape (key, stacked)
    second = Reshape (value, stacked)
    present = Concat <axis = 0> (first, second)
    y = Reshape (by_place, merged)          # do_rotary=0, past_present_share_buffer=0
}"""
)

MULTI_HEAD_ATTENTION = (
    """MultiHeadAttention <num_heads, mask_filter_value: float = -10000, scale: float = 0,
    unidirectional: int = 0>
    (q, k, v, b, mask, scores, past_key, past_value) => (y, key, value) {"""
    + _SHAPES
    + """
    q_shape = Shape (q)
    of_query = Gather (q_shape, two)
    k_shape = Shape (k)
    k_width = Gather (k_shape, two)
    both = Add (of_query, k_width)
    b_shape = Shape (b)                                     # b
    q_bias = Slice (b, zero, of_query, zero)                 # b
    k_bias = Slice (b, of_query, both, zero)                 # b
    v_bias = Slice (b, both, b_shape, zero)                 # b
    q_sum = Add (q, q_bias)                                 # b, k:3, v:3
    k_sum = Add (k, k_bias)                                 # b, k:3, v:3
    v_sum = Add (v, v_bias)                                 # b, k:3, v:3
    q_sum = Identity (q)                                    # not b
    k_sum = Identity (k)                                    # not b
    v_sum = Identity (v)                                    # not b
    q_split = Reshape (q_sum, split)                        # q:3
    k_split = Reshape (k_sum, split)                        # k:3
    v_split = Reshape (v_sum, split)                        # v:3
    query = Transpose <perm = [0, 2, 1, 3]> (q_split)
    new_key = Transpose <perm = [0, 2, 1, 3]> (k_split)     # k:3
    new_key = Identity (k)                                  # k:4
    new_value = Transpose <perm = [0, 2, 1, 3]> (v_split)   # v:3
    new_value = Identity (v)                                # v:4
"""
    + _ATTEND
    + """
    y = Reshape (by_place, merged)
}"""
)

GROUP_QUERY_ATTENTION = (
    """GroupQueryAttention <num_heads, kv_num_heads, do_rotary: int = 0,
    k_quant_type: string = "NONE", kv_cache_bit_width: int = 0, local_window_size: int = -1,
    qk_output: int = 0, rotary_interleaved: int = 0, scale: float = 0,
    sliding_window_cache: int = 0, smooth_softmax: int = -1, softcap: float = 0,
    v_quant_type: string = "NONE">
    (q, k, v, past_key, past_value, ends, room, cos, sin, at, scores) => (y, key, value) {"""
    + _SHAPES
    + """
    groups = Constant <value_ints: ints = @kv_num_heads> ()
    split_group = Concat <axis = 0> (zeros, groups, last)
    q_shape = Shape (q)
    width = Gather (q_shape, two)
    of_query = Identity (width)                             # k
    others = Mul (groups, two)                              # not k
    parts = Add (heads, others)                             # not k
    entry = Div (width, parts)                              # not k
    of_query = Mul (heads, entry)                           # not k
    of_key = Mul (groups, entry)                            # not k
    both = Add (of_query, of_key)                           # not k
    q_part = Slice (q, zero, of_query, two)                 # not k
    k_part = Slice (q, of_query, both, two)                 # not k
    v_part = Slice (q, both, width, two)                    # not k
    q_part = Identity (q)                                   # k
    k_part = Identity (k)                                   # k
    v_part = Identity (v)                                   # k
    q_split = Reshape (q_part, split)
    k_split = Reshape (k_part, split_group)
    v_split = Reshape (v_part, split_group)
    q_by_head = Transpose <perm = [0, 2, 1, 3]> (q_split)
    k_by_head = Transpose <perm = [0, 2, 1, 3]> (k_split)
    new_value = Transpose <perm = [0, 2, 1, 3]> (v_split)

    length = Gather (q_shape, one)
    column = Constant <value = int64[2] {-1, 1}> ()
    ends_column = Reshape (ends, column)
    lasts = Cast <to = 7> (ends_column)
    behind = Add (lasts, one)
    begun = Sub (behind, length)
    room_vector = Reshape (room, last)
    least = Cast <to = 7> (room_vector)
    anew = Equal (least, length)
    first = Where (anew, zero, begun)
    end = Squeeze (length)
    steps = Range (start, end, step)
    places = Add (first, steps)
    angles = Identity (at)                                  # at
    angles = Identity (places)                              # not at
    query = RotaryEmbedding <interleaved = @rotary_interleaved>
        (q_by_head, cos, sin, angles)                       # do_rotary
    new_key = RotaryEmbedding <interleaved = @rotary_interleaved>
        (k_by_head, cos, sin, angles)                       # do_rotary
    query = Identity (q_by_head)                            # not do_rotary
    new_key = Identity (k_by_head)                          # not do_rotary

    key = Identity (new_key)                                # not past_key
    value = Identity (new_value)                            # not past_key
    past_shape = Shape (past_key)                           # past_key
    held = Gather (past_shape, two)                         # past_key
    longest = Max (held, least)                             # past_key
    until = Squeeze (longest)                               # past_key
    rows = Range (start, until, step)                       # past_key
    beyond = Sub (rows, first)                              # past_key
    old = Less (beyond, zero)                               # past_key
    newest = Sub (length, one)                              # past_key
    within = Min (beyond, newest)                           # past_key
    shifted = Add (within, held)                            # past_key
    source = Where (old, rows, shifted)                     # past_key
    on_third = Constant <value = int64[4] {0, 1, -1, 1}> ()
    sources = Reshape (source, on_third)                    # past_key
    leading = Constant <value = int64[2] {0, 1}> ()
    outer = Gather (past_shape, leading)                    # past_key
    inner = Gather (past_shape, three)                      # past_key
    cache_shape = Concat <axis = 0> (outer, longest, inner) # past_key
    index = Expand (sources, cache_shape)                   # past_key
    all_keys = Concat <axis = 2> (past_key, new_key)        # past_key
    all_values = Concat <axis = 2> (past_value, new_value)  # past_key
    keys_taken = GatherElements <axis = 2> (all_keys, index)        # past_key
    values_taken = GatherElements <axis = 2> (all_values, index)    # past_key
    filled = Less (beyond, length)                          # past_key
    is_filled = Reshape (filled, on_third)                  # past_key
    none = Constant <value = float {0}> ()
    nothing = CastLike (none, query)
    key = Where (is_filled, keys_taken, nothing)            # past_key
    value = Where (is_filled, values_taken, nothing)        # past_key

    key_shape = Shape (key)
    trailing = Constant <value = int64[2] {2, 3}> ()
    tail = Gather (key_shape, trailing)
    apart = Concat <axis = 0> (zeros, one, tail)
    ratio = Div (heads, groups)
    times = Concat <axis = 0> (one, one, ratio, one, one)
    together = Concat <axis = 0> (zero, heads, tail)
    key_apart = Reshape (key, apart)
    key_wide = Expand (key_apart, times)
    keys = Reshape (key_wide, together)
    value_apart = Reshape (value, apart)
    value_wide = Expand (value_apart, times)
    values = Reshape (value_wide, together)
"""
    + _PRODUCT.replace("(key)", "(keys)")
    + """
    cap = Constant <value_float: float = @softcap> ()       # softcap
    bound = CastLike (cap, scaled)                          # softcap
    part = Div (scaled, bound)                              # softcap
    bent = Tanh (part)                                      # softcap
    capped = Mul (bent, bound)                              # softcap
    capped = Identity (scaled)                              # not softcap
    total = Gather (key_shape, two)
    total_end = Squeeze (total)
    columns = Range (start, total_end, step)
    place = Reshape (places, on_third)
    later = Greater (columns, place)
    reach = Constant <value_ints: ints = @local_window_size> ()
    horizon = Sub (place, reach)
    beyond_horizon = LessOrEqual (columns, horizon)
    hidden = Or (later, beyond_horizon)                     # not local_window_size=-1
    hidden = Identity (later)                               # local_window_size=-1
    infinity = Constant <value = float {-inf}> ()
    never = CastLike (infinity, query)
    causal = Where (hidden, never, nothing)
    bias = Add (causal, scores)                             # scores
    bias = Identity (causal)                                # not scores
    biased = Add (capped, bias)
    weights = Softmax <axis = -1> (biased)
    attended = MatMul (weights, values)
    by_place = Transpose <perm = [0, 2, 1, 3]> (attended)
    joined = Reshape (by_place, merged)                     # sliding_window_cache=0, qk_output=0
    y = Identity (joined)                                   # smooth_softmax=-1
    y = Identity (joined)                                   # smooth_softmax=0
}"""
)

ROTARY_EMBEDDING = """RotaryEmbedding <interleaved: int = 0, is_packed_batching: int = 0,
    num_heads: int = 0, rotary_embedding_dim: int = 0, scale: float = 1>
    (x, at, cos, sin) => (y) {
    shape = Shape (x)
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    last = Constant <value = int64[1] {-1}> ()
    start = Constant <value = int64 {0}> ()
    step = Constant <value = int64 {1}> ()
    batch = Gather (shape, zero)
    length = Gather (shape, one)                            # x:3
    length = Gather (shape, two)                            # x:4
    end = Squeeze (length)
    steps = Range (start, end, step)
    counted = Add (at, steps)
    all = Concat <axis = 0> (batch, length)
    places = Expand (counted, all)                          # at:1
    places = Identity (at)                                  # at:2
    table = Shape (cos)
    half = Gather (table, one)
    size = Add (half, half)
    zeros = Constant <value = int64[2] {0, 0}> ()
    split = Concat <axis = 0> (zeros, last, size)
    by_head = Reshape (x, split)
    moved = Transpose <perm = [0, 2, 1, 3]> (by_head)       # x:3, not num_heads
    moved = Identity (x)                                    # x:3, num_heads
    moved = Identity (x)                                    # x:4
    turned = RotaryEmbedding <interleaved = @interleaved, num_heads = @num_heads,
        rotary_embedding_dim = @rotary_embedding_dim> (moved, cos, sin, places)
    back = Transpose <perm = [0, 2, 1, 3]> (turned)
    merged = Constant <value = int64[3] {0, 0, -1}> ()
    whole = Reshape (back, merged)                          # x:3, not num_heads
    whole = Identity (turned)                               # x:3, num_heads
    whole = Identity (turned)                               # x:4
    y = Identity (whole)                                    # scale=1, is_packed_batching=0
}"""
