#!/bin/sh
# The profile `gpu` on a bare machine, within a given time:
#
#     sh benchmarks/gpu.sh [--seconds 540] [--data cifar10.tar.xz] [--out build/gpu] [--only ...] [--seeds "0 1"]
#
# Its Python needs torch, torchvision, transformers, accelerate and matplotlib. Wheels of anything else that is missing
# are taken from the folder .whl of this repository, if there is one; nothing is fetched. Where there are the same
# Python, these five and a network, this fills the folder (torchaudio has to be of torch's version; studies 1 to 3 do
# without it, av and espeakng-loader):
#
#     python3 benchmarks/missing.py | python3 -m pip download --no-deps --only-binary :all: -d .whl -r /dev/stdin
#
# Results come below --out in parts of at most 16 MB; more than 8 are told. Where the repository came without git,
# COMMIT=<hash> names its state in the records. With --rehearse every stage of all notebooks is done once at the size of
# the profile `smoke`, on a CPU, too.
set -e
cd "$(dirname "$0")/.."
site="${TMPDIR:-/tmp}/four-studies-site"
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
if ls .whl/*.whl >/dev/null 2>&1 && ! python3 benchmarks/missing.py >/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" .whl/*.whl
fi
python3 benchmarks/missing.py >&2 || echo "These are missing; what imports them fails." >&2
exec python3 benchmarks/gpu.py "$@"
