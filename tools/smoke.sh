#!/usr/bin/env bash
# Wheel and sdist as a stranger gets them: built, installed into an empty environment, and run.
#
#   tools/smoke.sh            PYTHON=... names the interpreter, EXTRAS= what is installed besides (serve)
#
# Nothing of this checkout is on the path of what runs: the environment is what pip made of the file.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
extras=${EXTRAS-serve}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(-m pip --quiet --disable-pip-version-check)

"$python" -m venv "$work/build"
"$work/build/bin/python" "${pip[@]}" install build
"$work/build/bin/python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    exit 1
}

"$python" -m venv "$work/env"
bin=$work/env/bin
wheel=("$work"/dist/*.whl)
sdist=("$work"/dist/*.tar.gz)
"$bin/python" "${pip[@]}" install -c "$root/constraints.txt" torch
"$bin/python" "${pip[@]}" install -c "$root/constraints.txt" "${wheel[0]}${extras:+[$extras]}"
cd "$work"
"$bin/python" "$root/tools/smoke.py"

# Its metadata are the same, so it needs what is there.
"$bin/python" "${pip[@]}" install --force-reinstall --no-deps "${sdist[0]}"
"$bin/python" "$root/tools/smoke.py"
echo "Wheel and sdist install and run."
