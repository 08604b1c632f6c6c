"""Ask a flood model behind TensorFlow Serving by gRPC.

    pip install tensorflow-serving-api
    python examples/ask_by_grpc.py 127.0.0.1:8500

A window is float32 [windows, height, width, bands]: backscatter in dB, bands in the
order of the model's card (VV, VH), NaN = no data. Its sides are multiples of the
model's stride. The answer has a probability per pixel and class.
"""

import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8500"
window = np.full([1, 64, 64, 2], [-8.0, -14.0], np.float32)
window[:, :, :32] = [-20.0, -27.0]  # The left half is dark, as water is.
window[:, :4, :4] = np.nan

request = predict_pb2.PredictRequest()
request.model_spec.name = "flood"
request.model_spec.version_label = "stable"
request.inputs["s1"].CopyFrom(tf.make_tensor_proto(window))
# Clients of gRPC refuse answers above 4 MiB by default.
options = [("grpc.max_receive_message_length", 256 << 20)]
with grpc.insecure_channel(host, options) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout=60)
water = tf.make_ndarray(answer.outputs["probabilities"])[0, :, :, 1]
print(f"version {answer.model_spec.version.value}")
print(f"left: {water[:, :32].mean():.3f} right: {water[:, 32:].mean():.3f}")
