#!/usr/bin/env bash
# Ask a flood model behind TensorFlow Serving by curl: one window of 32 x 32 pixels.
#   examples/ask_by_curl.sh 127.0.0.1:8501
# A pixel is the backscatter of VV and VH in dB, as the model's card orders the bands; NaN = no data.
# The answer is JSON: {"predictions": [...]} with the probabilities of each pixel.
set -euo pipefail
host=${1:-127.0.0.1:8501}
repeat() { local all; all=$(printf "$2,%.0s" $(seq "$1")); echo "[${all%,}]"; }
window=$(repeat 32 "$(repeat 32 '[-20.0, -27.0]')")
window=${window/'[-20.0, -27.0]'/'[NaN, NaN]'}
echo "{\"instances\": [{\"s1\": $window}]}" |
  curl --silent --show-error --fail-with-body --max-time 60 --header 'Content-Type: application/json' \
    --data-binary @- "http://$host/v1/models/flood/labels/stable:predict"
