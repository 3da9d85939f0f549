#!/bin/sh
# The profile `gpu` on a bare machine, within a given time:
#
#     sh benchmarks/gpu.sh [--seconds 540] [--data cifar10.tar.xz] [--out build/gpu] [--rehearse]
#
# Its Python needs torch, torchvision, transformers and accelerate. Wheels of anything else that is missing are
# taken from the folder .whl of this repository, if there is one; nothing is fetched. Results come in parts of at
# most 16 MB below --out. Where the repository came without git, COMMIT=<hash> names its state in the records.
# With --rehearse every stage is done once at the size of the profile `smoke`, on a CPU, too.
set -e
cd "$(dirname "$0")/.."
site="${TMPDIR:-/tmp}/four-studies-site"
if ls .whl/*.whl >/dev/null 2>&1 && ! python3 -c "import kornia, lpips, papermill" 2>/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" .whl/*.whl
fi
PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" exec python3 benchmarks/gpu.py "$@"
