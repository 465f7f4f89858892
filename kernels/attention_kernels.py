"""The bodies of paged attention in Triton: one for prompt chunks, decodes and drafts to verify, and one that merges.
Twin: reference.paged_attention.

A program owns one work item (attention_plan) and one KV head: up to BLOCK_Q queries of one row with all query heads
that share the KV head, so that a page is read once for the whole group, and a range of keys.

    tiles of BLOCK_N keys    |..####|######|######|######|######|###...|
                              masked  seen by every query, first  masked
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def load_pages(table, at, key_end, PAGE: tl.constexpr, BLOCK_N: tl.constexpr):
    """The pages of the tile that begins at key `at`: one number where a tile lies within a page, else [BLOCK_N]."""
    if PAGE % BLOCK_N == 0:
        pages = tl.load(table + tl.minimum(at, key_end - 1) // PAGE)
    else:
        pages = tl.load(table + tl.minimum(at + tl.arange(0, BLOCK_N), key_end - 1) // PAGE)
    return pages


@triton.jit
def load_vectors(at, is_live, is_dim, MASKED: tl.constexpr, IS_PADDED: tl.constexpr):
    """[BLOCK_N, BLOCK_D] vectors at pointers; zeros beyond HEAD_DIM, and for keys that are not there."""
    if MASKED and IS_PADDED:
        return tl.load(at, mask=is_live[:, None] & is_dim[None, :], other=0.0)
    if MASKED:
        return tl.load(at, mask=is_live[:, None], other=0.0)
    if IS_PADDED:
        return tl.load(at, mask=is_dim[None, :], other=0.0)
    return tl.load(at)


@triton.jit
def widen(x, dtype: tl.constexpr):
    """8-bit numbers as those of a product; all of them are exact in 16 bits."""
    if x.dtype == tl.int8:
        x = x.to(tl.float32)  # as the GPU does it; the interpreter has no way from integers to bfloat16
    return x.to(dtype)


@triton.jit
def visit_tiles(
    acc, total, best, q, limit, position, low_word, high_word, slope, begin, n_before, gap, n_tiles,
    key_low, key_end, tree_start, tree_positions, table, pages_at, scales_at, page_stride, scale_log2,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PAGE: tl.constexpr, PAGE_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ALIBI: tl.constexpr, TREE: tl.constexpr,
    QUANTISED: tl.constexpr, MASKED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Take n_tiles tiles of keys into the running softmax: acc [BLOCK_M, BLOCK_D], total and best [BLOCK_M].

    Tiles follow one another from key `begin`, but for `gap` keys that are left out after n_before tiles. best is in
    base 2, acc and total are relative to it. A masked tile of which a query sees nothing leaves its numbers as they
    are, to the bit.
    """
    IS_SCALED: tl.constexpr = SOFTCAP > 0 or ALIBI  # scores leave the dot in units of their own otherwise
    dims = tl.arange(0, BLOCK_D)
    is_dim = dims < HEAD_DIM
    at = begin
    if MASKED:
        at += tl.where(n_before == 0, gap, 0)
    pages = load_pages(table, at, key_end, PAGE, BLOCK_N)
    for tile in tl.range(n_tiles, num_stages=STAGES):
        key = at + tl.arange(0, BLOCK_N)
        if PAGE % BLOCK_N == 0:
            rows = at % PAGE + tl.arange(0, BLOCK_N)
        else:
            rows = key % PAGE
        is_live = (key >= key_low) & (key < key_end)
        k_at = pages_at + pages.to(tl.int64) * page_stride + rows * HEAD_DIM
        k_at = k_at[:, None] + dims[None, :]
        k = load_vectors(k_at, is_live, is_dim, MASKED, HEAD_DIM != BLOCK_D)
        v = load_vectors(k_at + KV_HEADS * PAGE_ROWS * HEAD_DIM, is_live, is_dim, MASKED, HEAD_DIM != BLOCK_D)
        if QUANTISED:
            scale_at = scales_at + pages.to(tl.int64) * (page_stride // 4) + rows
            if MASKED:
                k_scale = tl.load(scale_at, mask=is_live, other=0.0)
                v_scale = tl.load(scale_at + KV_HEADS * PAGE_ROWS * HEAD_DIM // 4, mask=is_live, other=0.0)
            else:
                k_scale = tl.load(scale_at)
                v_scale = tl.load(scale_at + KV_HEADS * PAGE_ROWS * HEAD_DIM // 4)
        # The pages of the tile after this one: where its keys lie must be known before they can be asked for.
        at += BLOCK_N
        if MASKED:
            at += tl.where(tile + 1 == n_before, gap, 0)
        pages = load_pages(table, at, key_end, PAGE, BLOCK_N)

        scores = tl.dot(q, tl.trans(widen(k, q.dtype)), input_precision="ieee")
        if QUANTISED:
            scores = scores * k_scale[None, :]
        if SOFTCAP > 0:  # tanh(x) = 1 - 2 / (e^2x + 1), which is right at both infinities
            capped = 1.0 - 2.0 / (tl.exp2(scores * (scale_log2 * (2.0 / SOFTCAP))) + 1.0)
            scores = capped * (SOFTCAP * 1.4426950408889634)
        elif ALIBI:
            scores = scores * scale_log2
        key_position = key
        # No node is 64 positions before another, so a wider window hides none, and their slots do as well.
        if TREE and MASKED and (ALIBI or (WINDOW > 0 and WINDOW < 64)):
            is_node = (key >= tree_start) & (key < key_end)
            key_position = tl.load(tree_positions + key, mask=is_node, other=0)
            key_position = tl.where(is_node, key_position, key)
        if ALIBI:
            scores -= slope[:, None] * (position[:, None] - key_position[None, :]).to(tl.float32)
        if MASKED:
            is_seen = key[None, :] <= limit[:, None]
            if TREE:
                node = key - tree_start  # below 64 for every key that a query is not too early for
                bit = tl.full([BLOCK_N], 1, tl.int32) << (node & 31)
                low, high = tl.where(node < 32, bit, 0), tl.where(node < 32, 0, bit)
                common = (low_word[:, None] & low[None, :]) | (high_word[:, None] & high[None, :])
                is_seen = is_seen & ((node < 0)[None, :] | (common != 0))
            if WINDOW > 0:
                is_seen = is_seen & (key_position[None, :] > position[:, None] - WINDOW)
            scores = tl.where(is_seen, scores, float("-inf"))

        if IS_SCALED:
            new_best = tl.maximum(best, tl.max(scores, 1))
        else:
            new_best = tl.maximum(best, tl.max(scores, 1) * scale_log2)
        shift = new_best
        if MASKED:  # nothing seen yet: -inf - -inf would be NaN
            shift = tl.where(new_best == float("-inf"), 0.0, new_best)
        if IS_SCALED:
            weights = tl.exp2(scores - shift[:, None])
        else:
            weights = tl.exp2(scores * scale_log2 - shift[:, None])
        decay = tl.exp2(best - shift)
        best = new_best
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None]
        if QUANTISED:
            weights = weights * v_scale[None, :]
            if q.dtype == tl.float32:
                acc = tl.dot(weights, widen(v, tl.float32), acc, input_precision="ieee")
            else:  # float16 has no room for a weight times a scale
                acc = tl.dot(weights.to(tl.bfloat16), widen(v, tl.bfloat16), acc)
        else:
            acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
    return acc, total, best


@triton.jit(do_not_specialize=["partial_rows"])
def attend(
    q_ptr, pages_ptr, scales_ptr, sinks_ptr, slopes_ptr, out_ptr, partial_ptr, lse_ptr,
    items_ptr, tables_ptr, positions_ptr, words_ptr, scale_log2, page_stride, partial_rows,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr, PAGE_ROWS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ALIBI: tl.constexpr, SINKS: tl.constexpr, TREE: tl.constexpr,
    QUANTISED: tl.constexpr, IS_UNIFORM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """q [n, KV_HEADS * GROUP, HEAD_DIM] to out, of its shape and dtype; grid: (items, KV_HEADS,
    blocks of BLOCK_M rows in an item), a row being (query, head of the group).

    Items with a partial index write float32 partial [partials, KV_HEADS, partial_rows, HEAD_DIM] and its lse (base 2)
    [partials, KV_HEADS, partial_rows] instead. IS_UNIFORM: mask every tile and go by ascending keys, so that a
    query's arithmetic does not depend on which others share its block.
    """
    item = items_ptr + tl.program_id(0).to(tl.int64) * 8
    n_queries = tl.load(item + 2)
    first_row = tl.program_id(2) * BLOCK_M
    if first_row >= n_queries * GROUP:  # also where there is no item
        return
    kv_head = tl.program_id(1)
    table = tables_ptr + tl.load(item)
    first_token = tl.load(item + 1)
    first_slot = tl.load(item + 3)
    begin = tl.load(item + 4)
    key_end = tl.load(item + 5)
    partial = tl.load(item + 6)
    tree_start = tl.load(item + 7)

    packed = first_row + tl.arange(0, BLOCK_M)
    query = packed // GROUP
    is_query = (packed < BLOCK_Q * GROUP) & (query < n_queries)
    dims = tl.arange(0, BLOCK_D)
    is_value = is_query[:, None] & (dims < HEAD_DIM)[None, :]
    head = kv_head * GROUP + packed % GROUP
    vector = (first_token + query).to(tl.int64) * (KV_HEADS * GROUP) + head
    q = tl.load(q_ptr + vector[:, None] * HEAD_DIM + dims[None, :], mask=is_value, other=0.0)
    slot = first_slot + query
    position, low_word, high_word = slot, slot, slot
    if TREE:
        position = tl.load(positions_ptr + first_token + query, mask=is_query, other=0)
        word = tl.load(words_ptr + first_token + query, mask=is_query, other=0)
        low_word, high_word = word.to(tl.int32), (word >> 32).to(tl.int32)
    slope = tl.full([BLOCK_M], 0.0, tl.float32)
    if ALIBI:
        slope = tl.load(slopes_ptr + head) * 1.4426950408889634
    limit = tl.minimum(slot, key_end - 1)
    tree_positions = positions_ptr + (first_token - first_slot)  # + key: where the position of a node's key is

    last_slot = first_slot + n_queries - 1
    key_low = 0
    seen_from = begin  # every query sees the keys from here …
    if WINDOW > 0:
        key_low = tl.maximum(tl.minimum(first_slot, tree_start) - WINDOW + 1, 0)
        begin = tl.maximum(begin, key_low // BLOCK_N * BLOCK_N)
        seen_from = tl.maximum(begin, tl.cdiv(tl.maximum(last_slot - WINDOW + 1, 0), BLOCK_N) * BLOCK_N)
    seen_to = tl.minimum(tl.minimum(first_slot + 1, tree_start), key_end) // BLOCK_N * BLOCK_N  # … to here
    n_tiles = tl.cdiv(tl.maximum(key_end - begin, 0), BLOCK_N)
    n_seen = tl.maximum(seen_to - seen_from, 0) // BLOCK_N
    n_before = (seen_from - begin) // BLOCK_N

    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    pages_at = pages_ptr + kv_head * (PAGE_ROWS * HEAD_DIM)
    scales_at = scales_ptr + (kv_head * PAGE_ROWS + PAGE) * HEAD_DIM // 4  # in float32, behind the tokens
    if IS_UNIFORM:
        n_seen = 0
    else:
        acc, total, best = visit_tiles(
            acc, total, best, q, limit, position, low_word, high_word, slope, seen_from, 0, 0,
            n_seen, key_low, key_end, tree_start, tree_positions, table, pages_at, scales_at, page_stride, scale_log2,
            KV_HEADS, HEAD_DIM, BLOCK_D, PAGE, PAGE_ROWS, BLOCK_N, WINDOW, SOFTCAP, ALIBI, TREE, QUANTISED,
            False, STAGES,
        )  # fmt: skip
    acc, total, best = visit_tiles(
        acc, total, best, q, limit, position, low_word, high_word, slope, begin, n_before, n_seen * BLOCK_N,
        n_tiles - n_seen, key_low, key_end, tree_start, tree_positions, table, pages_at, scales_at, page_stride,
        scale_log2,
        KV_HEADS, HEAD_DIM, BLOCK_D, PAGE, PAGE_ROWS, BLOCK_N, WINDOW, SOFTCAP, ALIBI, TREE, QUANTISED,
        True, STAGES,
    )  # fmt: skip

    safe_total = tl.where(total == 0.0, 1.0, total)  # 0: a query that sees none of these keys
    out = acc / safe_total[:, None]
    lse = tl.where(total == 0.0, float("-inf"), best + tl.log2(safe_total))
    if partial >= 0:
        at = (partial.to(tl.int64) * KV_HEADS + kv_head) * partial_rows + packed
        tl.store(lse_ptr + at, lse, mask=is_query)
        tl.store(partial_ptr + at[:, None] * HEAD_DIM + dims[None, :], out, mask=is_value)
    else:
        if SINKS:  # in the words of `merge`, so that both round alike
            sink = tl.load(sinks_ptr + head) * 1.4426950408889634
            peak = tl.maximum(lse, sink)
            weight = tl.exp2(lse - peak)
            out = out * weight[:, None] * (1.0 / (weight + tl.exp2(sink - peak)))[:, None]
        tl.store(out_ptr + vector[:, None] * HEAD_DIM + dims[None, :], out.to(out_ptr.dtype.element_ty), mask=is_value)


@triton.jit(do_not_specialize=["partial_rows"])
def merge(
    partial_ptr, lse_ptr, sinks_ptr, out_ptr, merges_ptr, partial_rows,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
    SINKS: tl.constexpr,
):  # fmt: skip
    """The mean of a vector's partial results, weighted by their log-sum-exp, to out [n, KV_HEADS * GROUP, HEAD_DIM];
    grid: (merges, partial_rows, KV_HEADS).

    Partials are added BLOCK_S at a time, each in the lane that its range of keys has, so that a sum does not depend on
    how many empty ranges stand before it.
    """
    entry = merges_ptr + tl.program_id(0).to(tl.int64) * 8
    packed, kv_head = tl.program_id(1), tl.program_id(2)
    n_queries = tl.load(entry + 1)
    if packed >= n_queries * GROUP:
        return
    first_token = tl.load(entry)
    first_partial = tl.load(entry + 2)
    n_partials = tl.load(entry + 3)
    first_lane = tl.load(entry + 4)
    head = kv_head * GROUP + packed % GROUP
    dims = tl.arange(0, BLOCK_D)
    lanes = tl.arange(0, BLOCK_S)
    best = float("-inf")
    total = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, first_lane + n_partials, BLOCK_S):
        index = first + lanes - first_lane
        is_there = (index >= 0) & (index < n_partials)
        at = ((first_partial + index).to(tl.int64) * KV_HEADS + kv_head) * partial_rows + packed
        lse = tl.load(lse_ptr + at, mask=is_there, other=float("-inf"))
        values = tl.load(
            partial_ptr + at[:, None] * HEAD_DIM + dims[None, :],
            mask=is_there[:, None] & (dims < HEAD_DIM)[None, :], other=0.0,
        )  # fmt: skip
        new_best = tl.maximum(best, tl.max(lse, 0))
        shift = tl.where(new_best == float("-inf"), 0.0, new_best)  # all empty so far
        weights = tl.exp2(lse - shift)
        decay = tl.exp2(best - shift)
        best = new_best
        total = total * decay + tl.sum(weights, 0)
        acc = acc * decay + tl.sum(values * weights[:, None], 0)
    out = acc * (1.0 / total)
    if SINKS:
        sink = tl.load(sinks_ptr + head) * 1.4426950408889634
        peak = tl.maximum(best, sink)
        weight = tl.exp2(best - peak)
        out = acc * weight * (1.0 / (total * weight + tl.exp2(sink - peak)))
    tl.store(
        out_ptr + ((first_token + packed // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + head) * HEAD_DIM + dims,
        out.to(out_ptr.dtype.element_ty), mask=dims < HEAD_DIM,
    )  # fmt: skip
