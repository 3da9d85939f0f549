#!/bin/sh
# Run the profile `gpu` on a bare machine, within a given time:
#
#     sh benchmarks/gpu.sh [--seconds 540] [--data cifar10.tar.xz] [--out build/gpu] [--only ...] [--seeds "0 1"]
#
# Its Python needs torch, torchvision, transformers, accelerate and matplotlib. Other missing packages are installed
# from wheels in the folder .whl of this repository, if there is one; nothing is downloaded. On a machine with the same
# Python, these five packages and a network, the following command fills the folder (torchaudio has to match torch's
# version; studies 1 to 3 need none of torchaudio, av and espeakng-loader):
#
#     python3 benchmarks/missing.py | python3 -m pip download --no-deps --only-binary :all: -d .whl -r /dev/stdin
#
# Results are packed into --out in parts of at most 16 MB, with a warning if there are more than 8. If the repository
# came without git, COMMIT=<hash> sets the commit in the records. --rehearse runs every stage of all notebooks once at
# the size of the profile `smoke`, also on a CPU.
set -e
cd "$(dirname "$0")/.."
site="${TMPDIR:-/tmp}/four-studies-site"
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
if ls .whl/*.whl >/dev/null 2>&1 && ! python3 benchmarks/missing.py >/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" .whl/*.whl
fi
python3 benchmarks/missing.py >&2 || echo "These are missing; what imports them fails." >&2
exec python3 benchmarks/gpu.py "$@"
