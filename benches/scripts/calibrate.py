#!/usr/bin/env python3
"""NumPy and ONNX Runtime as `cargo xtask bench calib` measures them.

The bench starts this script as a child and asks it in lines of JSON, one answer a question:

    {"do": "load", "file": F, "shape": [images, channels, positions]}
    {"do": "observe", "what": "minmax" | "histogram", "channels": false, "bins": 2048, "repeats": 1}
        go over the loaded array so often; answers the ends of every group, and the values counted
    {"do": "calibrate", "method": "minmax" | "entropy" | "percentile", "file": F, "examples": N,
     "tensors": [values of each tensor in an example], "at_once": true | false, "threads": 1}
        collect all examples, at once or one by one, and choose the ranges with ONNX Runtime's defaults; answers the seconds
        that took without reading the file, the ranges, and the memory in use; the threads are those of the session behind
        min-max: histograms are made by NumPy on one

Needs numpy; `calibrate` needs onnx and onnxruntime. What goes wrong is answered as {"error": TEXT}.
"""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import time


def memory(line):
    """A line of /proc/self/status in bytes; None where there is none.

    (The peak that getrusage knows includes that of the process that started this one.)
    """
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return None
    for text in status.splitlines():
        if text.startswith(line):
            return int(text.split()[1]) * 1024
    return None


class Observed:
    """The array that observers are compared on."""

    def __init__(self, file, shape):
        import numpy as np

        self.np = np
        self.x = np.fromfile(file, dtype="<f4").reshape(shape)

    def minmax(self, channels, _bins):
        axes = (0, 2) if channels else None
        low, high = self.x.min(axis=axes), self.x.max(axis=axes)
        return list(zip(low.reshape(-1), high.reshape(-1))), self.x.size

    def histogram(self, channels, bins):
        parts = [self.x[:, c] for c in range(self.x.shape[1])] if channels else [self.x]
        ends, count = [], 0
        for part in parts:
            counts, edges = self.np.histogram(part, bins=bins)
            ends.append((edges[0], edges[-1]))
            count += int(counts.sum())
        return ends, count

    def answer(self, what, channels, bins, repeats):
        for _ in range(repeats):
            ends, count = getattr(self, what)(channels, bins)
        return {"ends": [[float(low), float(high)] for low, high in ends], "count": count}


class Examples:
    """The tensors of a file, example after example; `seconds` were spent on reading."""

    def __init__(self, file, tensors, examples):
        self.file, self.tensors, self.left = open(file, "rb"), tensors, examples
        self.seconds = 0.0

    def get_next(self):
        import numpy as np

        if self.left == 0:
            self.file.close()
            return None
        self.left -= 1
        start = time.perf_counter()
        read = {f"t{i}": np.fromfile(self.file, dtype="<f4", count=n) for i, n in enumerate(self.tensors)}
        self.seconds += time.perf_counter() - start
        return read


def min_max(tensors, examples, threads):
    """MinMaxCalibrater on a model whose inputs are the tensors and which computes nothing else."""
    import onnx
    import onnxruntime as ort
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    class Threaded(MinMaxCalibrater):
        def create_inference_session(self):
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = threads
            self.infer_session = ort.InferenceSession(
                self.augmented_model_path, sess_options=options, providers=["CPUExecutionProvider"]
            )

    tensor, helper = onnx.TensorProto, onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Shape", [f"t{i}"], [f"s{i}"]) for i in range(len(tensors))],
        "inputs",
        [helper.make_tensor_value_info(f"t{i}", tensor.FLOAT, [n]) for i, n in enumerate(tensors)],
        [helper.make_tensor_value_info(f"s{i}", tensor.INT64, [1]) for i in range(len(tensors))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        onnx.save(model, path)
        calibrater = Threaded(path, augmented_model_path=f"{folder}/augmented.onnx")
        calibrater.augment_graph()
        calibrater.create_inference_session()
        start = time.perf_counter()
        calibrater.collect_data(examples)
        chosen = calibrater.compute_data()
        seconds = time.perf_counter() - start - examples.seconds
    return seconds, chosen.data


def histogram(method, examples, at_once):
    """The collector behind EntropyCalibrater and PercentileCalibrater, with their defaults."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    entropy = method == "entropy"
    collector = HistogramCollector(
        method=method,
        symmetric=not entropy,
        num_bins=128 if entropy else 2048,
        num_quantized_bins=128 if entropy else 2048,
        percentile=99.999,
        scenario="same",
    )
    seconds = 0.0
    merged = {}
    while read := examples.get_next():
        # As collect_data of the calibraters gathers what inference gives.
        for name, x in read.items():
            merged.setdefault(name, []).append(x)
        if not at_once or examples.left == 0:
            start = time.perf_counter()
            collector.collect(merged)
            seconds += time.perf_counter() - start
            merged = {}
    start = time.perf_counter()
    chosen = collector.compute_collection_result()
    return seconds + time.perf_counter() - start, chosen


def calibrate(method, file, tensors, examples, at_once, threads):
    read = Examples(file, tensors, examples)
    if method == "minmax":
        seconds, chosen = min_max(tensors, read, threads)
    else:
        seconds, chosen = histogram(method, read, at_once)
    ends = [chosen[f"t{i}"] for i in range(len(tensors))]
    ends = [(e[0], e[1]) if isinstance(e, tuple) else e.range_value for e in ends]
    return seconds, [[float(low.item()), float(high.item())] for low, high in ends]


def main():
    observed = None
    rest = None
    for line in sys.stdin:
        try:
            question = json.loads(line)
            # The calibrators print what they do.
            with contextlib.redirect_stdout(io.StringIO()):
                if question["do"] == "load":
                    observed = Observed(question["file"], question["shape"])
                    answer = {"ends": [], "count": observed.x.size}
                elif question["do"] == "observe":
                    keys = ("what", "channels", "bins", "repeats")
                    answer = observed.answer(**{key: question[key] for key in keys})
                else:
                    if rest is None:
                        import onnxruntime.quantization.calibrate  # noqa: F401

                        rest = memory("VmRSS:")
                    keys = ("method", "file", "tensors", "examples", "at_once", "threads")
                    # The first time finds memory never touched, and code never run.
                    for _ in range(2):
                        seconds, ranges = calibrate(**{key: question[key] for key in keys})
                    answer = {
                        "seconds": seconds,
                        "ranges": ranges,
                        "rest_bytes": rest,
                        "peak_bytes": memory("VmHWM:"),
                    }
        except Exception as error:  # noqa: BLE001: whatever it is, the bench is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
