"""What kernels of GPUs and TPUs cost: fusions beside others, library calls, the compiler's cycles."""

import pytest

from aver_jax.chips.hlo.costs import costs
from aver_jax.chips.hlo.text import parse

# XLA for GPUs starts a fusion that runs beside others, and waits for it later. Its result is a
# tuple of the operands, of the fusion's own result, and of a context.
BESIDE = """HloModule jit_f, is_scheduled=true

%fused_update (p0: f32[12,64,768], p1: f32[1,64,768], p2: s32[]) -> f32[12,64,768] {
  %p0 = f32[12,64,768]{2,1,0} parameter(0)
  %p1 = f32[1,64,768]{2,1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[12,64,768]{2,1,0} dynamic-update-slice(%p0, %p1, %p2, %zero, %zero)
}

%fused_slice (q0: f32[12,768], q1: s32[]) -> f32[1,768] {
  %q0 = f32[12,768]{1,0} parameter(0)
  %q1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  ROOT %slice = f32[1,768]{1,0} dynamic-slice(%q0, %q1, %zero.1), dynamic_slice_sizes={1,768}
}

ENTRY %main (a: f32[12,64,768], b: f32[1,64,768], i: s32[], c: f32[12,768]) -> (f32[12,64,768], f32[1,768]) {
  %a = f32[12,64,768]{2,1,0} parameter(0)
  %b = f32[1,64,768]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  %c = f32[12,768]{1,0} parameter(3)
  %fusion-start = ((f32[12,64,768]{2,1,0}, f32[1,64,768]{2,1,0}, s32[]), f32[12,64,768]{2,1,0}, u32[]) fusion-start(%a, %b, %i), kind=kLoop, calls=%fused_update
  %fusion-start.1 = ((f32[12,768]{1,0}, s32[]), f32[1,768]{1,0}, u32[]) fusion-start(%c, %i), kind=kLoop, calls=%fused_slice
  %fusion-done = f32[12,64,768]{2,1,0} fusion-done(%fusion-start)
  %fusion-done.1 = f32[1,768]{1,0} fusion-done(%fusion-start.1)
  ROOT %tuple = (f32[12,64,768]{2,1,0}, f32[1,768]{1,0}) tuple(%fusion-done, %fusion-done.1)
}
"""

# As jax 0.11 for CUDA 13 compiles dot_product_attention(implementation="cudnn") with lengths, the
# settings that are not read left out.
ATTENTION = """HloModule jit_f, is_scheduled=true

ENTRY %main (q: bf16[32,200,12,64], k: bf16[32,200,12,64], v: bf16[32,200,12,64], n: s32[32]) -> bf16[32,12,200,64] {
  %q = bf16[32,200,12,64]{3,2,1,0} parameter(0)
  %k = bf16[32,200,12,64]{3,2,1,0} parameter(1)
  %v = bf16[32,200,12,64]{3,2,1,0} parameter(2)
  %n = s32[32]{0} parameter(3)
  %fwd = (bf16[32,12,200,64]{3,1,2,0}, f32[32,12,200]{2,1,0}, u8[64]{0}) custom-call(%q, %k, %v, %n, %n), custom_call_target="__cudnn$fmhaSoftmax", backend_config={"operation_queue_id": "0", "cudnn_fmha_backend_config": {"fmha_scale": 0.125, "intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["32", "12", "200", "200"]}, "mask_type": "PADDING"}}
  %out = bf16[32,12,200,64]{3,1,2,0} get-tuple-element(%fwd), index=0
  %stats = f32[32,12,200]{2,1,0} get-tuple-element(%fwd), index=1
  %bwd = (bf16[32,12,200,64]{3,1,2,0}, bf16[32,12,200,64]{3,1,2,0}, bf16[32,12,200,64]{3,1,2,0}, u8[64]{0}) custom-call(%q, %k, %v, %stats, %out, %out, %n, %n), custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={"cudnn_fmha_backend_config": {"intermediate_tensor_shape": {"dimensions": ["32", "12", "200", "200"]}}}
  ROOT %dq = bf16[32,12,200,64]{3,1,2,0} get-tuple-element(%bwd), index=0
}
"""

# A sum that is sliced in the same fusion, as where one token of a row is read after a bias is added.
SLICED = """HloModule jit_f, is_scheduled=true

%fused (p: bf16[512,200,768], bias: bf16[768]) -> f32[512,1,768] {
  %p = bf16[512,200,768]{2,1,0} parameter(0)
  %bias = bf16[768]{0} parameter(1)
  %wide = bf16[512,200,768]{2,1,0} broadcast(%bias), dimensions={2}
  %sum = bf16[512,200,768]{2,1,0} add(%p, %wide)
  %slice = bf16[512,1,768]{2,1,0} slice(%sum), slice={[0:512], [0:1], [0:768]}
  ROOT %convert = f32[512,1,768]{2,1,0} convert(%slice)
}

ENTRY %main (x: bf16[512,200,768], b: bf16[768]) -> f32[512,1,768] {
  %x = bf16[512,200,768]{2,1,0} parameter(0)
  %b = bf16[768]{0} parameter(1)
  ROOT %fusion = f32[512,1,768]{2,1,0} fusion(%x, %b), kind=kLoop, calls=%fused
}
"""

# A Pallas kernel as jax 0.11 compiles it for a TPU, its body left out.
KERNEL = """HloModule jit_f, is_scheduled=true

ENTRY %main (q: bf16[64,1,200,768]) -> bf16[64,1,200,768] {
  %q = bf16[64,1,200,768]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %kernel = bf16[64,1,200,768]{3,2,1,0:T(8,128)(2,1)} custom-call(%q), custom_call_target="tpu_custom_call", backend_config={"custom_call_config": {"body": "TUzv", "cost_estimate":{"flops":"7864320000","transcendentals":"30720000","bytes_accessed":"78643200"}}}
}
"""

TPU = """HloModule jit_f, is_scheduled=true

%body (t: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %t = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%t), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %tanh = f32[8,128]{1,0:T(8,128)} tanh(%x), backend_config={"flag_configs":[],"estimated_cycles":"250"}
  ROOT %next = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%j, %tanh)
}

%test (u: (s32[], f32[8,128])) -> pred[] {
  %u = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %true = pred[]{:T(512)} constant(true)
}

ENTRY %main (y: f32[8,128], k: s32[]) -> f32[8,128] {
  %y = f32[8,128]{1,0:T(8,128)} parameter(0)
  %k = s32[]{:T(128)} parameter(1)
  %start = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%k, %y)
  %while = (s32[], f32[8,128]{1,0:T(8,128)}) while(%start), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  ROOT %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while), index=1
}
"""


def test_a_fusion_beside_others_moves_what_it_slices_and_updates():
    update, piece = costs(parse(BESIDE)).rows
    part = 64 * 768 * 4
    # The part that is read, the part that is written, and the index; not twelve of them.
    assert update.bytes == 2 * part + 4
    assert piece.bytes == 2 * 768 * 4 + 4
    assert (update.klass, piece.klass) == ("slice", "slice")
    assert update.kind == "fusion-start kLoop"


# A projection of a ResNet's, as jax 0.11 for CUDA 13 compiles it.
PROJECTION = """HloModule jit_f

ENTRY %main (x: bf16[8,56,56,64], w: bf16[128,SIZE,SIZE,64], b: bf16[128]) -> (bf16[8,28,28,128], u8[0]) {
  %x = bf16[8,56,56,64]{3,2,1,0} parameter(0)
  %w = bf16[128,SIZE,SIZE,64]{3,2,1,0} parameter(1)
  %b = bf16[128]{0} parameter(2)
  ROOT %conv = (bf16[8,28,28,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w, %b), window={size=SIZExSIZE stride=2x2PAD}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBiasActivationForward"
}
"""


@pytest.mark.parametrize(("size", "pad", "share"), [(1, "", 0.25), (3, " pad=1_1x1_1", 1)])
def test_a_convolution_reads_what_lies_in_its_windows(size, pad, share):
    (row,) = costs(parse(PROJECTION.replace("SIZE", str(size)).replace("PAD", pad))).rows
    read = share * 8 * 56 * 56 * 64 + 128 * size * size * 64 + 128
    assert row.bytes == 2 * (read + 8 * 28 * 28 * 128)


@pytest.mark.parametrize(("number", "products"), [(0, 2), (1, 5)])
def test_attention_of_cudnn_counts_its_products_and_no_scratch_memory(number, products):
    row = costs(parse(ATTENTION)).rows[number]
    assert row.klass == "matmul"
    assert row.flops == products * 2 * 32 * 12 * 200 * 200 * 64
    rows, stats, lengths = 32 * 12 * 200 * 64 * 2, 32 * 12 * 200 * 4, 2 * 32 * 4
    # Forward reads q, k and v and writes the output; backward reads the output and its gradient
    # too, and writes three gradients. Both pass the sums of the softmax on.
    assert row.bytes == (4 if not number else 8) * rows + stats + lengths


def test_the_compilers_cycles_count_every_round_of_a_loop():
    (row,) = costs(parse(TPU)).rows
    assert (row.runs, row.cycles) == (12, 12 * 250)
    assert all(row.cycles is None for row in costs(parse(BESIDE)).rows)


def test_of_what_is_added_to_and_then_sliced_the_slice_alone_is_read():
    (row,) = costs(parse(SLICED)).rows
    assert row.bytes == 512 * 768 * (2 + 4) + 768 * 2


def test_a_pallas_kernel_multiplies_what_its_author_says():
    (row,) = costs(parse(KERNEL)).rows
    assert (row.kind, row.klass, row.flops) == ("tpu_custom_call", "matmul", 7864320000)
    assert row.cycles is None
