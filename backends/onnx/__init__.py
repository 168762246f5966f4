"""Target onnx: a graph after any passes as an ONNX file, for ONNX Runtime or any other runtime.

effcc.compile("model.onnx", target="onnx", reduce_tokens="tome:r=8").save("smaller.onnx")
"""
