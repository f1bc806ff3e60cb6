#!/usr/bin/env bash
# Correctness and speed on a machine with a CUDA device, in at most eight minutes.
#
#   benchmarks/gpu.sh                     on a machine that has torch and what pyproject.toml names
#   benchmarks/gpu.sh --fetch wheels      with internet: carry the packages of this environment there
#   benchmarks/gpu.sh --wheels wheels     without: install what is missing from that folder
#   benchmarks/gpu.sh --small --device cpu    everything in small, without a GPU
#
# PYTHON=... names the interpreter; torch is never fetched or replaced, as a machine with a GPU has
# the build that fits it. Whatever else is given is handed on to benchmarks/gpu.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" = "--fetch" ]; then
    folder=${2:?name a folder}
    "$python" -m pip list --format=freeze --exclude-editable |
        grep -viE '^(torch|torchvision|torchaudio|torchcodec|triton|nvidia-.*|cuda-.*|vllm.*|affectlens|pip)==' \
        >"${TMPDIR:-/tmp}/affectlens-wheels.txt"
    exec "$python" -m pip download --no-deps --dest "$folder" \
        --requirement "${TMPDIR:-/tmp}/affectlens-wheels.txt"
fi

if [ "${1:-}" = "--wheels" ]; then
    folder=$(cd "${2:?name a folder}" && pwd)
    shift 2
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    "$python" -m venv --system-site-packages "$place"
    python=$place/bin/python
    "$python" -c '
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
lines = project["dependencies"] + project["optional-dependencies"]["study"]
print(*(one for one in lines if not one.startswith("torch>")), sep="\n")
' "$root/pyproject.toml" >"$place/needed.txt"
    "$python" -m pip install --quiet --no-index --find-links "$folder" --requirement "$place/needed.txt"
fi

PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" timeout --signal=INT 480 \
    "$python" "$root/benchmarks/gpu.py" "$@"
