//! A model as a graph: ONNX files in and out, shape inference, and an executor for float32, QDQ and int8 forms.
