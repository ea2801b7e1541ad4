"""The report on compiled functions: parsing, counts of operations and bytes, traces, errors."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.chips.hlo.costs import alike, costs
from aver_jax.chips.hlo.text import Shape, parse, parse_instruction, parse_shape, shortened
from aver_jax.config import load_config, override
from aver_jax.runs.run_folder import METADATA, write_config
from tools import hlo_report
from tools.hlo.report import make_report, report_text
from tools.hlo.traces import read

# Two loops, one within the other: XLA tells the length of the inner one, the outer one's condition
# compares with a constant that comes in through the loop's tuple.
NESTED = r"""HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,16]{1,0})->f32[8,8]{1,0}}

FileNames
1 "/home/me/project/net.py"
2 "/lib/site-packages/flax/linear.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=2 end_column=9}
2 {file_name_id=2 function_name_id=1 line=99 end_line=99 column=2 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused_dot (param_0: f32[8,16], param_1: f32[16,8]) -> f32[8,8] {
  %param_0 = f32[8,16]{1,0} parameter(0)
  %param_1 = f32[16,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,8]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/transpose(jvp(Net))/while/body/closed_call/blocks/blocks._divided/attn/vmap(a,b->c)/dot_general" stack_frame_id=2}
}

%inner_body (arg.1: (s32[], f32[8,16], f32[8,8])) -> (s32[], f32[8,16], f32[8,8]) {
  %arg.1 = (s32[], f32[8,16]{1,0}, /*index=2*/f32[8,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  %x.1 = f32[8,16]{1,0} get-tuple-element(%arg.1), index=1
  %transpose.1 = f32[16,8]{1,0} transpose(%x.1), dimensions={1,0}
  %ynn_fusion = f32[8,8]{1,0} fusion(%x.1, %transpose.1), kind=kCustom, calls=%fused_dot, backend_config={"fusion_config":{"kind":"__ynn_fusion"}}
  ROOT %tuple.1 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}) tuple(%i.1, %x.1, %ynn_fusion)
}

%inner_condition (arg.2: (s32[], f32[8,16], f32[8,8])) -> pred[] {
  %arg.2 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}) parameter(0)
  ROOT %constant.9 = pred[] constant(true)
}

%outer_body (arg.3: (s32[], f32[8,16], f32[8,8], s32[])) -> (s32[], f32[8,16], f32[8,8], s32[]) {
  %arg.3 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}, s32[]) parameter(0)
  %while.1 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}) while(%arg.3), condition=%inner_condition, body=%inner_body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %tuple.2 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}, s32[]) tuple(%while.1)
}

%compared (param_0.1: s32[], param_1.1: s32[]) -> pred[] {
  %param_0.1 = s32[] parameter(0)
  %param_1.1 = s32[] parameter(1)
  ROOT %lt = pred[] compare(%param_1.1, %param_0.1), direction=LT
}

%outer_condition (arg.4: (s32[], f32[8,16], f32[8,8], s32[])) -> pred[] {
  %arg.4 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}, s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%arg.4), index=0
  %n.2 = s32[] get-tuple-element(%arg.4), index=3
  ROOT %wrapped_compare = pred[] fusion(%n.2, %i.2), kind=kLoop, calls=%compared
}

ENTRY %main.9 (x: f32[8,16]) -> f32[8,8] {
  %x = f32[8,16]{1,0} parameter(0), metadata={op_name="x"}
  %zero = s32[] constant(0)
  %five = s32[] constant(5)
  %constant.3 = f32[] constant(0)
  %broadcast.3 = f32[8,8]{1,0} broadcast(%constant.3), dimensions={}
  %tuple.3 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}, s32[]) tuple(%zero, %x, %broadcast.3, %five)
  %while.2 = (s32[], f32[8,16]{1,0}, f32[8,8]{1,0}, s32[]) while(%tuple.3), condition=%outer_condition, body=%outer_body
  ROOT %out = f32[8,8]{1,0} get-tuple-element(%while.2), index=2
}
"""  # noqa: E501


def in_entry(*lines, computations=""):
    return parse(
        "HloModule m\n\n" + computations + "\nENTRY %e () -> f32[] {\n" + "\n".join(lines) + "\n}\n"
    )


def rows(program):
    return {row.name: row for row in costs(program).rows}


def compiled(function, *arguments):
    return parse(jax.jit(function).lower(*arguments).compile().as_text())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("f32[]", Shape("f32")),
        ("bf16[8,128]{1,0:T(8,128)(2,1)S(1)}", Shape("bf16", (8, 128), (1, 0))),
        ("s32[]{:T(128)}", Shape("s32")),
        ("f32[<=5]{0}", Shape("f32", (5,), (0,))),
        ("()", Shape("tuple")),
        (
            "(f32[2]{0}, (pred[], token[]), /*index=2*/u8[0]{0})",
            Shape(
                "tuple",
                parts=(
                    Shape("f32", (2,), (0,)),
                    Shape("tuple", parts=(Shape("pred"), Shape("token"))),
                    Shape("u8", (0,), (0,)),
                ),
            ),
        ),
    ],
)
def test_shapes_are_parsed_with_their_layouts_and_tiles(written, expected):
    assert parse_shape(written + " add(") == (expected, len(written))


def test_sizes_of_shapes():
    shape, _ = parse_shape("(f32[2,3]{1,0}, bf16[5]{0}, s4[8]{0}, token[])")
    assert (shape.bytes, shape.size) == (24 + 10 + 4, 6 + 5 + 8 + 1)
    assert str(shape) == "(f32[2,3], bf16[5], s4[8], token[])"


def test_quotes_and_braces_within_an_instruction():
    line = (
        '  ROOT %a.b-1 = f32[2]{0} custom-call(%x, /*index=1*/%y.2), custom_call_target="f, {(",'
        ' metadata={op_name="jit(f)/a\\"}, b" stack_frame_id=4}, backend_config={"n":{"m":[1,2]}}'
    )
    found = parse_instruction(line)
    assert (found.name, found.opcode, found.root) == ("a.b-1", "custom-call", True)
    assert found.operands == ("x", "y.2")
    assert (found.target, found.frame, found.op_name) == ("f, {(", 4, 'jit(f)/a\\"}, b')
    assert found.attributes["backend_config"] == '{"n":{"m":[1,2]}}'


def test_instructions_in_nested_loops_run_as_often_as_both_say():
    found = rows(parse(NESTED))
    product = found["ynn_fusion"]
    assert product.runs == 5 * 3
    assert product.flops == 5 * 3 * 2 * 8 * 8 * 16
    assert product.bytes == 5 * 3 * 4 * (8 * 16 + 16 * 8 + 8 * 8)
    assert (product.klass, found["transpose.1"].klass) == ("matmul", "transpose")
    assert found["broadcast.3"].klass == "fill"


def test_a_row_names_our_line_and_the_jax_operation():
    found = rows(parse(NESTED))["ynn_fusion"]
    assert (found.source, found.path) == ("net.py:7", "backward blocks/attn/dot_general")
    assert shortened("jit(f)/jvp(N)/a/b;jit(f)/c") == "forward a/b"


def test_a_loop_without_a_known_length_counts_once_and_is_named():
    known = 'backend_config={"known_trip_count":{"n":"3"}}'
    found = costs(parse(NESTED.replace(known, "backend_config={}")))
    assert found.unknown_loops == ("while.1",)
    assert {row.name: row.runs for row in found.rows}["ynn_fusion"] == 5
    assert "while.1" in report_text(make_report(found), top=3)


def test_slices_and_updates_of_a_stack_move_their_own_bytes():
    stacked = """%f (p0: f32[12,64], p1: s32[], p2: f32[12,64]) -> f32[12,64] {
  %p0 = f32[12,64]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[12,64]{1,0} parameter(2)
  %c = s32[] constant(0)
  %slice = f32[1,64]{1,0} dynamic-slice(%p2, %p1, %c), dynamic_slice_sizes={1,64}
  %exp = f32[1,64]{1,0} exponential(%slice)
  ROOT %u = f32[12,64]{1,0} dynamic-update-slice(%p0, %exp, %p1, %c)
}
"""
    program = in_entry(
        "  %a = f32[12,64]{1,0} parameter(0)",
        "  %i = s32[] parameter(1)",
        "  ROOT %s = f32[12,64]{1,0} fusion(%a, %i, %a), kind=kLoop, calls=%f",
        computations=stacked,
    )
    assert rows(program)["s"].bytes == 64 * 4 + 4 + 64 * 4
    assert rows(program)["s"].klass == "slice"


@pytest.mark.parametrize(
    ("line", "klass"),
    [
        # An axis of length 1 may lie anywhere: nothing changes its place.
        ("%r = f32[4,1,8]{2,0,1} copy(%x)", "copy"),
        ("%r = f32[4,1,8]{0,1,2} copy(%x)", "transpose"),
        ("%r = f32[8,1,4]{0,1,2} transpose(%x), dimensions={2,1,0}", "copy"),
        ("%r = f32[8,1,4]{2,1,0} transpose(%x), dimensions={2,1,0}", "transpose"),
        ("%r = f32[4,1,8]{2,1,0} negate(%x)", "elementwise"),
        ("%r = f32[4,1,8]{2,1,0} all-reduce(%x), to_apply=%add", "collective"),
    ],
)
def test_what_changes_the_order_in_memory_is_a_transpose(line, klass):
    program = in_entry("  %x = f32[4,1,8]{2,1,0} parameter(0)", f"  ROOT {line}")
    assert rows(program)["r"].klass == klass


def library_call(line, *parameters):
    values = [f"  %p{i} = {shape} parameter({i})" for i, shape in enumerate(parameters)]
    return rows(in_entry(*values, f"  ROOT %r = {line}"))["r"]


def test_operations_of_cublas():
    found = library_call(
        "(bf16[6,128,32]{2,1,0}, s8[4194304]{0}) custom-call(%p0, %p1), "
        'custom_call_target="__cublas$gemm", backend_config={"operation_queue_id":"0",'
        '"gemm_backend_config":{"alpha_real":1,"dot_dimension_numbers":{'
        '"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],'
        '"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]},"epilogue":"DEFAULT"}}',
        "bf16[6,128,64]{2,1,0}",
        "bf16[6,64,32]{2,1,0}",
    )
    assert found.flops == 6 * 2 * 128 * 32 * 64
    # Without the library's scratch memory.
    assert found.bytes == 2 * 6 * (128 * 64 + 64 * 32 + 128 * 32)
    assert (found.klass, found.kind) == ("matmul", "__cublas$gemm")


@pytest.mark.parametrize(("suffix", "products"), [("", 2), ("Backward", 5)])
def test_operations_of_cudnn_attention(suffix, products):
    shape = "bf16[4,197,12,64]{3,2,1,0}"
    found = library_call(
        f"({shape}, u8[0]{{0}}) custom-call(%p0, %p1, %p2), "
        f'custom_call_target="__cudnn$fmhaSoftmax{suffix}", backend_config={{'
        '"cudnn_fmha_backend_config":{"fmha_scale":0.125,"intermediate_tensor_shape":{'
        '"element_type":"BF16","dimensions":["4","12","197","197"]}}}',
        *[shape] * 3,
    )
    assert found.flops == products * 2 * 4 * 12 * 197 * 197 * 64


@pytest.mark.parametrize(
    ("kind", "result", "operands"),
    [
        ("Forward", 2, (0, 1)),
        ("BackwardInput", 0, (2, 1)),
        ("BackwardFilter", 1, (0, 2)),
    ],
)
def test_operations_of_cudnn_convolutions(kind, result, operands):
    shapes = ("f32[2,8,8,3]{3,2,1,0}", "f32[5,1,1,3]{3,2,1,0}", "f32[2,4,4,5]{3,2,1,0}")
    found = library_call(
        f"({shapes[result]}, u8[0]{{0}}) custom-call(%p0, %p1), window={{size=1x1 stride=2x2}}, "
        f'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"',
        *(shapes[i] for i in operands),
    )
    assert found.flops == 2 * (2 * 4 * 4) * 5 * 3


def test_an_unknown_library_product_has_no_number_of_operations():
    call = 'f32[4,4]{1,0} custom-call(%p0), custom_call_target="__cublas$new"'
    found = library_call(call, "f32[4,4]{1,0}")
    assert found.flops is None


def test_a_product_in_a_scan_is_counted_exactly():
    def function(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x.sum()), x, weights)

    program = compiled(function, jnp.ones((24, 40)), jnp.ones((7, 40, 40)))
    assert sum(row.flops for row in costs(program).rows) == 7 * 2 * 24 * 40 * 40


def test_convolutions_and_their_gradients_count_as_xla_counts_them():
    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4)))
    expected = lowered.cost_analysis()["flops"]
    program = parse(lowered.compile().as_text())
    assert sum(row.flops for row in costs(program).rows) == pytest.approx(expected, rel=1e-2)


def test_copy_and_transpose_share():
    x = jnp.ones((64, 96))
    moving = make_report(costs(compiled(lambda x: jnp.exp(x).T + 1, x)))
    assert moving.moving()[0] > 0.3
    still = make_report(costs(compiled(lambda x: jnp.exp(x) + 1, x)))
    assert still.moving() == (0, 0)


def test_unrolled_layers_are_one_line_together():
    program = in_entry(
        "  %x = f32[4]{0} parameter(0)",
        "  %a.1 = f32[4]{0} negate(%x)",
        "  %a.2 = f32[4]{0} negate(%a.1)",
        "  ROOT %b = f32[4]{0} exponential(%a.2)",
    )
    found = {row.name: row for row in alike(costs(program).rows)}
    assert found["a.1"].names == ("a.1", "a.2")
    assert (found["a.1"].runs, found["a.1"].bytes) == (2, 64)
    assert found["b"].runs == 1


def write_trace(path, events):
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)


def event(name, start, duration, pid=1, tid=1, **arguments):
    return {
        "ph": "X", "pid": pid, "tid": tid, "name": name, "ts": start, "dur": duration,
        "args": arguments,
    }  # fmt: skip


def test_a_trace_of_a_cpu_gives_times_per_run(tmp_path):
    one = {"hlo_module": "jit_f"}
    events = [event("ThunkExecutor::Execute", 0, 900)]
    for start in (0, 1000):
        events += [
            event("while.2", start, 500, hlo_op="while.2", **one),
            event("broadcast.3", start, 40, tid=2, hlo_op="broadcast.3", **one),
            *[
                event("ynn_fusion", start + 50 + 20 * i, 10, hlo_op="ynn_fusion", **one)
                for i in range(15)
            ],
        ]
    events.append(event("other", 5000, 10, hlo_op="other", hlo_module="jit_g"))
    write_trace(tmp_path / "host.trace.json.gz", events)
    found = costs(parse(NESTED))
    measured = read(tmp_path, "jit_f", found.containers)
    report = make_report(found, measured)
    assert report.runs == 2
    seconds = {row.cost.name: row.seconds for row in report.rows}
    assert seconds["ynn_fusion"] == pytest.approx(150e-6)
    assert seconds["broadcast.3"] == pytest.approx(40e-6)
    assert report.rows[0].cost.name == "ynn_fusion"
    # 190 of the microseconds from 0 to 340, and of those from 1000 on.
    assert measured.span == pytest.approx(1340e-6)
    assert measured.busy == pytest.approx(380 / 1340)
    assert report.strange == 0


def test_a_trace_that_begins_within_a_run_gives_times_of_whole_ones(tmp_path):
    events = [
        event("r", start, 30, hlo_op=name, hlo_module="m")
        for name, starts in (("r", (0, 100, 200)), ("a.1", (150, 250)), ("a.2", (170, 270)))
        for start in starts
    ]
    write_trace(tmp_path / "a.trace.json.gz", events)
    program = in_entry(
        "  %x = f32[4]{0} parameter(0)",
        "  %a.1 = f32[4]{0} negate(%x)",
        "  %a.2 = f32[4]{0} negate(%a.1)",
        "  ROOT %r = f32[4]{0} exponential(%a.2)",
    )
    report = make_report(costs(program), read(tmp_path, "m"))
    seconds = {row.cost.name: row.seconds for row in report.rows}
    assert seconds == {"a.1": pytest.approx(60e-6), "r": pytest.approx(30e-6)}
    assert report.seconds == pytest.approx(90e-6)


def test_a_trace_of_a_gpu_is_read_from_its_streams(tmp_path):
    names = [
        {"ph": "M", "pid": 9, "name": "process_name", "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/host:CPU"}},
        *[
            {"ph": "M", "pid": 9, "tid": tid, "name": "thread_name", "args": {"name": name}}
            for tid, name in ((1, "Stream #13(Compute)"), (2, "XLA Ops"), (3, "XLA Modules"))
        ],
    ]
    kernel = event("sm90_gemm", 10, 5, 9, 1, hlo_op="ynn_fusion", hlo_module="jit_f")
    again = event("ynn_fusion", 10, 5, 9, 2, hlo_op="ynn_fusion", hlo_module="jit_f")
    host = event("ynn_fusion", 0, 99, 1, 1, hlo_op="ynn_fusion", hlo_module="jit_f")
    write_trace(tmp_path / "perfetto_trace.json.gz", [*names, kernel, again, host])
    assert read(tmp_path, "jit_f").seconds == {"ynn_fusion": pytest.approx(5e-6)}
    write_trace(tmp_path / "perfetto_trace.json.gz", [*names, again | {"args": {}}, host])
    assert read(tmp_path, "jit_f").seconds == {"ynn_fusion": pytest.approx(5e-6)}


def test_another_programs_trace_is_noticed(tmp_path):
    write_trace(tmp_path / "a.trace.json.gz", [event("x", 0, 9, hlo_op="x", hlo_module="jit_g")])
    found = costs(parse(NESTED))
    report = make_report(found, read(tmp_path, "jit_f"))
    assert "not have: was the trace" in report_text(report, top=3)


def test_a_real_trace_names_the_instructions_of_the_program(tmp_path):
    def function(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x.sum()), x, weights)

    arguments = jnp.ones((64, 64)), jnp.ones((6, 64, 64))
    program = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(tmp_path, create_perfetto_trace=True, profiler_options=options):
        for _ in range(3):
            jax.block_until_ready(program(*arguments))
    parsed = parse(program.as_text())
    found = costs(parsed)
    report = make_report(found, read(tmp_path, parsed.name, found.containers))
    assert (report.runs, report.strange) == (3, 0)
    assert report.shares(lambda cost: cost.klass)["matmul"][1] > 0


TINY = [
    "--config", "timesformer.py:size=demo", "--config.model.width=8", "--config.model.num_heads=1",
    "--config.data.image_size=16", "--config.model.depth=1", "--batch_size", "4", "--classes", "3",
    # Most of the compiler's time would go to the augmentations.
    *(f"--config.frontend.augment.{name}=0.0" for name in ("flip", "rotate", "translate")),
    *(f"--config.frontend.augment.{name}=(1.0, 1.0)" for name in ("scale", "contrast")),
]  # fmt: skip


@pytest.mark.parametrize("program", ["train", "inference"])
def test_the_command_reports_on_a_program(program, tmp_path, capsys):
    out = tmp_path / "report.json"
    words = [*TINY, "--program", program, "--top", "40", "--json", str(out)]
    assert hlo_report.main(words) == 0
    printed = capsys.readouterr().out
    assert "copies and transposes: " in printed
    assert "blocks.py:" in printed
    content = json.loads(out.read_text())
    assert content["program"] == program
    assert content["memory"]["argument"] > 0
    # One of the four devices computes one clip: the products of a block at least.
    tokens, width = 1 + 4 * 4, 8
    assert content["flops"] > 2 * tokens * width * 12 * width
    assert np.isclose(sum(share["bytes"] for share in content["classes"].values()), 1)
    assert not content["unknown_loops"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trace", "nowhere"], "no trace at nowhere"),
        (["--config.model.depht=3"], "unknown config field"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--batch_size", "6"], "cannot be divided by 4 devices"),
        (["--config.parallel=pmap"], "config.parallel is 'pmap'"),
    ],
)
def test_errors_are_one_line(words, message, capsys):
    assert hlo_report.main([*TINY, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_trace_of_another_run_is_one_line(tmp_path, capsys):
    config = load_config(TINY[TINY.index("--config") + 1])
    config = override(config, [word for word in TINY if word.startswith("--config.")])
    metadata = dict.fromkeys(METADATA) | {"classes": [], "modalities": [], "preparation": {}}
    (tmp_path / "profile").mkdir()
    write_trace(tmp_path / "profile" / "a.trace.json.gz", [])
    words = [*TINY, "--trace", str(tmp_path / "profile"), "--batch_size", "8"]
    config.batch_size = 8
    write_config(tmp_path, config, metadata)
    hlo_report.check_run(tmp_path / "profile" / "a.trace.json.gz", config)
    config.batch_size = 16
    write_config(tmp_path, config, metadata)
    assert hlo_report.main(words) == 2
    error = capsys.readouterr().err
    assert error.endswith("of another compiled function: config.batch_size was 16, here 8\n")
    config.data.cache = "device"
    write_config(tmp_path, config, metadata)
    assert hlo_report.main(words) == 2
    assert "profile a run with --config.data.cache=none" in capsys.readouterr().err


def test_a_folder_or_file_without_a_trace_is_one_line(tmp_path, capsys):
    assert hlo_report.main([*TINY, "--trace", str(tmp_path)]) == 2
    assert "no trace in" in capsys.readouterr().err
