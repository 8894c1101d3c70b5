#!/usr/bin/env python3
"""Makes the fixtures of crates/qcalib/tests/fixtures with the tools themselves.

Run once for each tool, in an environment that has it:

    python scripts/make_calib_fixtures.py onnxruntime   # onnxruntime, onnx, numpy
    ATEN_CPU_CAPABILITY=avx2 python scripts/make_calib_fixtures.py torch
    TF_ENABLE_ONEDNN_OPTS=0 python scripts/make_calib_fixtures.py tensorflow

The inputs are drawn by a generator that the Rust tests repeat, so a fixture holds only what the
tool answered; floats are stored as the bits of their f32.
"""

import contextlib
import io
import itertools
import json
import pathlib
import sys
import tempfile

import numpy as np

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "crates/qcalib/tests/fixtures"
MASK = (1 << 64) - 1


def draw(spec):
    """The values of a spec `[kind, seed, count, scale]`; every operation is one f32 rounding."""
    kind, seed, count, scale = spec
    per_value = {"uniform": 1, "heavy": 3, "relu": 3, "skewed": 2}[kind]
    state = seed
    raw = np.empty(count * per_value, dtype=np.float32)
    for i in range(len(raw)):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        raw[i] = np.float32((state >> 40) - (1 << 23)) / np.float32(1 << 23)
    raw = raw.reshape(count, per_value)
    x = raw[:, 0]
    for column in range(1, per_value):
        x = x * raw[:, column]
    if kind == "relu":
        x = np.maximum(x, np.float32(0))
    if kind == "skewed":
        x = x + np.float32(0.25)
    x = x * np.float32(scale)
    assert x.dtype == np.float32
    return x


def bits(x):
    return [int(v) for v in np.asarray(x, dtype=np.float32).reshape(-1).view(np.uint32)]


def bit(x):
    (one,) = bits(x)
    return one


def write(name, content):
    path = FIXTURES / name
    with path.open("w") as f:
        f.write("{\n")
        parts = []
        for key, value in content.items():
            if isinstance(value, list):
                rows = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in value)
                parts.append(f'"{key}": [\n{rows}\n]')
            else:
                parts.append(f'"{key}": {json.dumps(value)}')
        f.write(",\n".join(parts))
        f.write("\n}\n")
    print(path, path.stat().st_size)


STREAMS = [
    [["heavy", 1, 3000, 4.0]],
    [["relu", 2, 3000, 6.0]],
    [["uniform", 3, 500, 1.0], ["uniform", 4, 500, 1.0]],
    [["skewed", 5, 800, 1.0], ["heavy", 6, 800, 3.0], ["skewed", 7, 800, 9.5]],
    [["heavy", 8, 2000, 0.01], ["heavy", 9, 2000, 0.02], ["relu", 10, 2000, 0.5]],
    [["relu", 11, 1000, 100.0], ["heavy", 12, 1000, 1.0]],
    [["uniform", 13, 1, 1.0], ["uniform", 14, 700, 0.7]],
    [["uniform", 15, 10, 0.0], ["heavy", 16, 700, 5.0]],
]


# Ranges so narrow that the smallest scale decides.
FLOORED = [
    [["uniform", 18, 20, 0.0]],
    [["heavy", 19, 300, 1e-9]],
    [["uniform", 20, 20, 0.0], ["skewed", 21, 300, 1e-9]],
]


def onnxruntime():
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper
    from onnxruntime.quantization import calibrate
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    def collect(stream, **settings):
        c = calibrate.HistogramCollector(scenario="same", **settings)
        with contextlib.redirect_stdout(io.StringIO()):
            for spec in stream:
                c.collect({"x": draw(spec)})
            result = c.compute_collection_result()["x"]
        return result[0], result[1]

    # The tool's search takes time with the cube of the bins, and a range that grows adds bins.
    entropy = []
    quick = [(s, (128, 128)) for s in STREAMS if s is not STREAMS[4]]
    slow = [(s, c) for s in (STREAMS[0], STREAMS[2]) for c in [(512, 128), (301, 64)]]
    for stream, (bins, quantized) in quick + slow:
        low, high = collect(
            stream, method="entropy", symmetric=False, num_bins=bins,
            num_quantized_bins=quantized, percentile=99.999,
        )
        entropy.append({"in": stream, "bins": bins, "levels": quantized, "out": [bit(low), bit(high)]})

    percentile = []
    for stream, bins, percent, symmetric in itertools.product(
        STREAMS, [128, 2048], [99.999, 99.0, 80.0], [True, False]
    ):
        if symmetric and stream[0][3] == 0.0:
            continue  # a first batch of zeros, then others: np.arange of a unit step is not our concern
        low, high = collect(
            stream, method="percentile", symmetric=symmetric, num_bins=bins,
            num_quantized_bins=128, percentile=percent,
        )
        percentile.append({
            "in": stream, "bins": bins, "percent": percent, "symmetric": symmetric,
            "out": [bit(low), bit(high)],
        })

    class Reader(calibrate.CalibrationDataReader):
        def __init__(self, specs):
            self.items = iter([{"x": draw(s)} for s in specs])

        def get_next(self):
            return next(self.items, None)

    min_max = []
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    many = [["heavy", 100 + i, 50, 1.0 + i / 8] for i in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.onnx"
        onnx.save(model, path)
        for calls in [[s] for s in STREAMS] + [[STREAMS[3], STREAMS[4]], [STREAMS[5], STREAMS[0], STREAMS[2]],
                                               [many], [many[:9], many[9:40], many[40:]]]:
            for symmetric, moving, constant in [
                (False, False, 0.01), (True, False, 0.01), (False, True, 0.01), (True, True, 0.3),
            ]:
                c = calibrate.create_calibrator(
                    path, augmented_model_path=str(pathlib.Path(folder) / "a.onnx"),
                    extra_options={"symmetric": symmetric, "moving_average": moving,
                                   "averaging_constant": constant},
                )
                for specs in calls:
                    c.collect_data(Reader(specs))
                low, high = c.compute_data()["x"].range_value
                min_max.append({
                    "in": calls, "symmetric": symmetric, "moving_average": moving,
                    "constant": constant, "out": [bit(low), bit(high)],
                })

    params = []
    ranges = [(-1.0, 1.0), (0.0, 6.0), (-0.3, 2.7), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-38, 1e-38),
              (-3e38, 3e38), (-0.1, 25.4), (1e-45, 1e-44), (-7.123, 0.001)]
    types = {"i8": TensorProto.INT8, "u8": TensorProto.UINT8, "i16": TensorProto.INT16, "u16": TensorProto.UINT16}
    for (low, high), (name, code), symmetric, reduced in itertools.product(
        ranges, types.items(), [False, True], [False, True]
    ):
        if reduced and name in ("i16", "u16"):
            continue
        low32, high32 = np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)
        qmin, qmax = get_qmin_qmax_for_qType(code, reduce_range=reduced, symmetric=symmetric)
        zero, scale = compute_scale_zp(low32, high32, qmin, qmax, symmetric)
        params.append({
            "in": [bit(low32), bit(high32)], "type": name, "symmetric": symmetric, "reduced": reduced,
            "scale": bit(scale), "zero": int(zero), "range": [int(qmin), int(qmax)],
        })

    dynamic = []
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("q", TensorProto.UINT8, ["n"]),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
         helper.make_tensor_value_info("z", TensorProto.UINT8, [])],
    )
    session = ort.InferenceSession(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    specs = [s for stream in STREAMS for s in stream] + [["uniform", 200 + i, 20, 1.0 + i] for i in range(20)]
    for spec in specs:
        _, scale, zero = session.run(None, {"x": draw(spec)})
        dynamic.append({"in": spec, "scale": bit(scale), "zero": int(zero)})

    write("onnxruntime.json", {
        "onnxruntime": ort.__version__, "numpy": np.__version__, "entropy": entropy, "percentile": percentile,
        "min_max": min_max, "params": params, "dynamic": dynamic,
    })


def torch_tool():
    import torch
    from torch.ao.quantization import observer as o

    torch.set_num_threads(1)
    types = {"qint8": torch.qint8, "quint8": torch.quint8}
    settings = [
        {"dtype": d, "symmetric": s, "reduce_range": r, "range": q}
        for d, s, r, q in [
            ("quint8", False, False, None), ("quint8", True, False, None), ("quint8", False, True, None),
            ("qint8", False, False, None), ("qint8", True, False, None), ("qint8", False, True, None),
            ("qint8", True, True, None), ("quint8", False, False, [0, 15]), ("quint8", True, False, [0, 15]),
            ("qint8", True, False, [-8, 7]),
        ]
    ]

    def arguments(s, channel=False):
        scheme = ("per_channel_" if channel else "per_tensor_") + ("symmetric" if s["symmetric"] else "affine")
        out = {"dtype": types[s["dtype"]], "qscheme": getattr(torch, scheme), "reduce_range": s["reduce_range"]}
        if s["range"]:
            out["quant_min"], out["quant_max"] = s["range"]
        return out

    def answer(observer):
        scale, zero = observer.calculate_qparams()
        return {"scale": bits(scale.numpy()), "zero": [int(z) for z in zero.reshape(-1)]}

    tensors, channels, histograms = [], [], []
    for stream, s in itertools.product(STREAMS + FLOORED, settings):
        for kind, make in [
            ("min_max", lambda a: o.MinMaxObserver(**a)),
            ("moving_average", lambda a: o.MovingAverageMinMaxObserver(averaging_constant=0.01, **a)),
            ("moving_average_3", lambda a: o.MovingAverageMinMaxObserver(averaging_constant=0.3, **a)),
        ]:
            m = make(arguments(s))
            for spec in stream:
                m(torch.from_numpy(draw(spec)))
            tensors.append({"in": stream, "kind": kind, **s, **answer(m)})
    shaped = [[["heavy", 31, 60, 2.0]], [["skewed", 32, 60, 2.0], ["relu", 33, 60, 5.0], ["heavy", 34, 60, 9.0]]]
    for stream, s, axis in itertools.product(shaped, settings, [0, 1, 2]):
        for kind, make in [
            ("per_channel", o.PerChannelMinMaxObserver),
            ("moving_average_per_channel", o.MovingAveragePerChannelMinMaxObserver),
        ]:
            m = make(ch_axis=axis, **arguments(s, True))
            for spec in stream:
                m(torch.from_numpy(draw(spec)).reshape(3, 4, 5))
            channels.append({"in": stream, "kind": kind, "axis": axis, **s, **answer(m)})
    grown = STREAMS[:6] + [
        [["heavy", 41, 4000, 30.0]], [["relu", 42, 4000, 50.0], ["relu", 43, 4000, 60.0]],
        [["heavy", 44, 3000, 9.0], ["heavy", 45, 3000, 9.0], ["skewed", 46, 3000, 20.0], ["heavy", 47, 3000, 40.0]],
    ]
    whole = [s for s in settings if s["range"] is None]  # the observer takes no range of one's own
    cases = [(stream, bins, settings[0]) for stream, bins in itertools.product(grown, [256, 2048])]
    cases += [(stream, 256, s) for stream, s in itertools.product(grown[:2] + grown[6:], whole[1:])]
    cases += [(stream, 2048, s) for stream, s in itertools.product(FLOORED, whole)]
    for stream, bins, s in cases:
        m = o.HistogramObserver(bins=bins, **arguments(s))
        for spec in stream:
            m(torch.from_numpy(draw(spec)))
        low, high = m._non_linear_param_search()
        histograms.append({
            "in": stream, "bins": bins, **s, "seen": [bit(m.min_val), bit(m.max_val)],
            "histogram": int(np.bitwise_xor.reduce(m.histogram.numpy().view(np.uint32) * np.arange(1, bins + 1, dtype=np.uint32))),
            "out": [bit(low), bit(high)], **answer(m),
        })
    write("torch_observers.json", {
        "torch": torch.__version__, "tensors": tensors, "channels": channels, "histograms": histograms,
    })

    # Where a scale is a power of two, x / S, which we compute, and x · (1 / S), which torch does, are equal;
    # at the others both round to the same integers unless x lies within rounding of a tie, which none does.
    odd = [float(np.float32(s)) for s in (0.1, 0.037, 0.3, 0.7, 0.0011)]
    fake = []
    for spec, (scale, zero, low, high) in itertools.product(
        [["heavy", 51, 48, 8.0], ["skewed", 52, 48, 4.0]],
        [(0.0625, 0, -128, 127), (0.03125, 100, 0, 255), (0.25, 3, 0, 15), (0.5, 0, -2, 1), (2.0**-10, 0, -32768, 32767),
         (odd[0], 0, -128, 127), (odd[1], 100, 0, 255), (odd[2], 3, 0, 15), (odd[3], 0, -2, 1), (odd[4], 0, -32768, 32767)],
    ):
        x = torch.from_numpy(draw(spec)).requires_grad_(True)
        g = torch.from_numpy(draw(["uniform", spec[1] + 7, 48, 1.0]))
        y = torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)
        y.backward(g)
        row = {"in": spec, "scale": scale, "zero": zero, "range": [low, high],
               "y": bits(y.detach()), "dx": bits(x.grad)}
        for factor in [1.0, 0.125]:
            x2 = x.detach().clone().requires_grad_(True)
            s2 = torch.tensor([scale], requires_grad=True)
            z2 = torch.tensor([float(zero)], requires_grad=True)
            y2 = torch._fake_quantize_learnable_per_tensor_affine(x2, s2, z2, low, high, factor)
            y2.backward(g)
            row.setdefault("learnable", []).append({
                "factor": factor, "y": bits(y2.detach()), "dx": bits(x2.grad), "ds": bit(s2.grad), "dz": bit(z2.grad),
            })
        fake.append(row)
    per_channel = []
    for axis, power in itertools.product([0, 1, 2], [True, False]):
        spec = ["heavy", 61, 60, 8.0]
        n = (3, 4, 5)[axis]
        scales = torch.tensor([2.0 ** -(i + 2) if power else 0.37 / (i + 2) for i in range(n)])
        zeros = torch.tensor([3 * i for i in range(n)], dtype=torch.int32)
        x = torch.from_numpy(draw(spec)).reshape(3, 4, 5).requires_grad_(True)
        g = torch.from_numpy(draw(["uniform", 68, 60, 1.0])).reshape(3, 4, 5)
        y = torch.fake_quantize_per_channel_affine(x, scales, zeros, axis, 0, 255)
        y.backward(g)
        x2 = x.detach().clone().requires_grad_(True)
        s2 = scales.clone().requires_grad_(True)
        z2 = zeros.float().requires_grad_(True)
        y2 = torch._fake_quantize_learnable_per_channel_affine(x2, s2, z2, axis, 0, 255, 0.5)
        y2.backward(g)
        per_channel.append({
            "in": spec, "axis": axis, "scales": bits(scales), "zeros": zeros.tolist(), "y": bits(y.detach()),
            "dx": bits(x.grad), "ds": bits(s2.grad), "dz": bits(z2.grad),
        })
    # PACT is a clamp whose upper end is learned, then a quantizer with a straight-through gradient.
    pact = []
    for spec, alpha, levels in itertools.product([["heavy", 71, 64, 6.0], ["skewed", 72, 64, 6.0]], [1.0, 2.5], [3, 15, 255]):
        x = torch.from_numpy(draw(spec)).requires_grad_(True)
        a = torch.tensor(alpha, requires_grad=True)
        g = torch.from_numpy(draw(["uniform", spec[1] + 7, 64, 1.0]))
        clipped = torch.where(x < a, torch.relu(x), a)
        clipped.backward(g)
        pact.append({"in": spec, "alpha": alpha, "levels": levels, "dx": bits(x.grad), "da": bit(a.grad)})
    write("torch_gradients.json", {
        "torch": torch.__version__, "per_tensor": fake, "per_channel": per_channel, "pact": pact,
    })


def tensorflow_tool():
    import tensorflow as tf

    ranges = [(-1.0, 1.0), (0.0, 6.0), (-0.1, 25.4), (0.04, 25.54), (-3.0, -1.0), (-1e-30, 1e-30), (-1e30, 2e30)]
    for seed in range(20):
        low, width = draw(["uniform", 300 + seed, 2, 2.0 ** (seed - 10)])
        ranges.append((float(low), float(low + abs(width) * np.float32(3))))
    nudged = []
    for (low, high), width, narrow in itertools.product(ranges, [2, 4, 8, 16], [False, True]):
        low, high = np.float32(low), np.float32(high)
        settings = {"min": low, "max": high, "num_bits": width, "narrow_range": narrow}

        def end(far, ahead):
            """The last value, going ahead, that still has a gradient: the clamp's own end, to the bit."""
            about = tf.quantization.fake_quant_with_min_max_vars(tf.constant([far], tf.float32), **settings).numpy()[0]
            x = about
            for _ in range(60):
                x = np.nextafter(x, np.float32(-ahead))
            near = [x]
            for _ in range(120):
                near.append(np.nextafter(near[-1], np.float32(ahead)))
            if about == 0.0:  # beside which are subnormals, which the tool takes for 0
                near = [0.0, np.copysign(np.finfo(np.float32).tiny, ahead)]
            near = np.array(near, dtype=np.float32)
            ones = tf.ones(len(near))
            inside, _, _ = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(gradients=ones, inputs=near, **settings)
            (inside,) = np.nonzero(inside.numpy())
            assert 0 < len(inside) < len(near), (settings, about)
            return near[inside[-1]]

        nudged.append({
            "in": [bit(low), bit(high)], "range": [int(narrow), 2**width - 1],
            "out": [bit(end(-3e38, -np.inf)), bit(end(3e38, np.inf))],
        })

    @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32)])
    def tanh(x):
        return tf.nn.tanh(x)

    # A calibrated network of one operator: what the converter gives its input for the ends it saw.
    module = tf.Module()
    module.tanh = tanh
    converted = []
    for seed in range(30):
        low, width = draw(["uniform", 400 + seed, 2, 2.0 ** (seed % 10)])
        ranges.append((-abs(float(low)), abs(float(width)) + 0.01))
    for low, high in ranges:
        low, high = np.float32(low), np.float32(high)
        if high - low < 1e-10 or high > 1e10:
            continue  # the converter has other rules for ranges next to nothing, and cannot calibrate huge ones
        c = tf.lite.TFLiteConverter.from_concrete_functions([tanh.get_concrete_function()], module)
        c.optimizations = [tf.lite.Optimize.DEFAULT]
        c.representative_dataset = lambda: iter([[np.array([[low, high]], np.float32)]])
        c.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        c.inference_input_type = c.inference_output_type = tf.int8
        (details,) = tf.lite.Interpreter(model_content=c.convert()).get_input_details()
        q = details["quantization_parameters"]
        converted.append({"in": [bit(low), bit(high)], "scale": bit(q["scales"]), "zero": int(q["zero_points"][0])})
    write("tensorflow.json", {
        "tensorflow": tf.__version__, "nudged": nudged, "converted": converted, "run_time": run_time(tf),
    })


def run_time(tf):
    """What the interpreter gives activations that it quantizes itself, seen through a product with the identity.

    Weights are int8 of scale 1, so the outputs are `(q - Z) * S` of the quantized inputs `q`.
    """
    n = 512
    identity = np.eye(n, n + 1, dtype=np.float32)
    identity[0, n] = 127  # makes the weights' scale 1

    @tf.function(input_signature=[tf.TensorSpec([1, n], tf.float32)])
    def product(x):
        return tf.matmul(x, tf.constant(identity))

    module = tf.Module()
    module.product = product
    c = tf.lite.TFLiteConverter.from_concrete_functions([product.get_concrete_function()], module)
    c.optimizations = [tf.lite.Optimize.DEFAULT]
    c._experimental_disable_per_channel_quantization_for_dense_layers = True
    kinds = tf.lite.experimental.OpResolverType
    interpreters = []
    for kind in [kinds.BUILTIN_REF, kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES]:
        i = tf.lite.Interpreter(model_content=c.convert(), experimental_op_resolver_type=kind)
        i.allocate_tensors()
        (weights,) = [t for t in i.get_tensor_details() if list(t["shape"]) == [n + 1, n]]
        assert weights["dtype"] == np.int8 and weights["quantization_parameters"]["scales"] == [1.0]
        interpreters.append(i)

    def outputs(i, x):
        i.set_tensor(i.get_input_details()[0]["index"], x[None])
        i.invoke()
        return i.get_tensor(i.get_output_details()[0]["index"])[0, :n]

    def explanations(x, y):
        """The pairs of S and Z with which all outputs are those of the inputs."""
        far = np.argmax(np.abs(x))
        width = np.float64(max(x.max(), 0)) - np.float64(min(x.min(), 0))
        about = np.float32(y[far] / np.rint(y[far] / (width / 255)))
        scales = [about]
        for _ in range(4):
            scales = [np.nextafter(scales[0], np.float32(0)), *scales, np.nextafter(scales[-1], np.float32(np.inf))]
        for scale in scales:
            k = np.rint(y / scale)
            if not np.array_equal(k.astype(np.float32) * scale, y):
                continue
            for zero in range(-128, 128):
                q = np.float32(zero) + x * (np.float32(1) / scale)
                q = np.copysign(np.floor(np.abs(q.astype(np.float64)) + 0.5), q)
                if np.array_equal(np.clip(q, -128, 127) - zero, k):
                    yield scale, zero

    ranges = [(0.0, 6.0), (-0.1, 25.4), (0.04, 25.54), (-3.0, -1.0), (2.0, 6.0), (-1e-30, 1e-30), (-1e30, 2e30)]
    for seed in range(120):
        low, width = draw(["heavy", 500 + seed, 2, 2.0 ** (seed % 20 - 10)])
        ranges.append((float(low), float(low + abs(width) * np.float32(3))))
    for seed in range(40):  # zero points that are halves
        (end,) = draw(["heavy", 600 + seed, 1, 2.0 ** (seed % 20 - 10)])
        ranges.append((-abs(float(end)), abs(float(end))))
    rows = []
    for low, high in ranges:
        x = np.linspace(low, high, n, dtype=np.float32)
        x[0], x[-1] = low, high
        y = outputs(interpreters[0], x)
        assert np.array_equal(y, outputs(interpreters[1], x)), (low, high)
        # A zero point that two integers are equally near to shows only where something is clamped, and
        # the tool does not round all halves alike; so some ranges leave two possibilities or none.
        found = list(explanations(x, y))
        if len(found) == 1:
            ((scale, zero),) = found
            rows.append({"in": [bit(low), bit(high)], "scale": bit(scale), "zero": zero})
    print(len(rows), "of", len(ranges), "rows have one explanation")
    assert len(rows) >= 120
    return rows


if __name__ == "__main__":
    {"onnxruntime": onnxruntime, "torch": torch_tool, "tensorflow": tensorflow_tool}[sys.argv[1]]()
