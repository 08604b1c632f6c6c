"""Ask a flood model behind TensorFlow Serving by REST, with Python alone.

    python examples/ask_by_rest.py 127.0.0.1:8501

A window is [height, width, bands]: backscatter in dB, bands in the order of the model's
card (VV, VH). No data is the word NaN, which the server reads although JSON does not
have it, and which Python writes. The sides are multiples of the model's stride.
"""

import json
import sys
import urllib.request

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8501"
row = [[-20.0, -27.0]] * 32 + [[-8.0, -14.0]] * 32  # The left half is dark, as water is.
window = [list(row) for _ in range(64)]
window[0][0] = [float("nan"), float("nan")]

request = urllib.request.Request(
    f"http://{host}/v1/models/flood/labels/stable:predict",
    json.dumps({"instances": [{"s1": window}]}).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=60) as response:
    answer = json.load(response)["predictions"][0]
# A model with one output answers with its values alone.
probabilities = answer["probabilities"] if isinstance(answer, dict) else answer
water = [[pixel[1] for pixel in row] for row in probabilities]
left, right = (sum(sum(row[at : at + 32]) for row in water) / (64 * 32) for at in (0, 32))
print(f"left: {left:.3f} right: {right:.3f}")
