#!/bin/sh
# Follow the README as a stranger would, from a bare clone of the last commit, and time each step.
#
#     sh benchmarks/release.sh            all of it: an hour or so on two cores
#     sh benchmarks/release.sh figures    only the steps named; see the end of this file
#
# Stops at the first step that fails, shows the end of its output, and leaves the clone for inspection.
set -eu
cd "$(dirname "$0")/.."
unset VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV PYTHONPATH OUTPUT_ROOT DATA_ROOT PROFILE ONLY PARAMS MAKEFLAGS
folder=$(mktemp -d)
asked=${*:-study figures images sounds recording paper site verify test}
git clone --quiet --depth 1 "file://$PWD" "$folder/clone"
cd "$folder/clone"
echo "$(git log -1 --format='%h %s'), in $folder/clone, on $(nproc 2>/dev/null || sysctl -n hw.ncpu) cores"

step() {
    name=$1
    shift
    case " $asked " in *" $name "*) ;; *) return 0 ;; esac
    begin=$(date +%s)
    if ! "$@" >"$folder/$name.log" 2>&1; then
        tail -n 40 "$folder/$name.log"
        echo "FAILED: $name ($*); everything is in $folder"
        exit 1
    fi
    printf '%6d s  %s\n' "$(($(date +%s) - begin))" "$name: $*"
}

# Two folders as users have them: images of two classes, and recordings of two classes in two lengths and rates.
own_files() {
    .venv/bin/python - "$folder" <<'END'
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

folder, draw = Path(sys.argv[1]), np.random.default_rng(0)
for number, name in enumerate(("까치", "blue tit")):
    (folder / "birds" / name).mkdir(parents=True)
    (folder / "sounds" / name).mkdir(parents=True)
    for k in range(150):
        pixels = draw.integers(0, 120, (32, 32, 3)) + np.array([0, 120]).take([number, 1 - number, number])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "birds" / name / f"{k}.png")
    for k in range(40):
        rate, seconds = (44_100, 3.0) if k % 2 else (16_000, 4.0)
        time = np.arange(int(rate * seconds)) / rate
        tone = 0.1 * np.sin(2 * np.pi * (300 + 900 * number) * time) + 0.02 * draw.standard_normal(len(time))
        soundfile.write(folder / "sounds" / name / f"{k}.wav", tone, rate)
END
}

# The README's example of the recogniser, on one of these recordings.
recording() {
    .venv/bin/python - "$folder" <<'END'
import re
import sys
from pathlib import Path

[code] = re.findall(r"```python\n(from pathlib.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
sound = next(Path(sys.argv[1]).glob("sounds/*/1.wav"))
assert "evening.m4a" in code
exec(code.replace("evening.m4a", str(sound)))
END
}

step study make figures ONLY=03_corregularization
step figures make figures
case " $asked " in *" figures "*)
    echo "          data that differ from those stored (those with times do, and last digits on another processor):"
    git diff --name-only -- 'figures/quick/*.csv' | sed 's/^/          /'
    ;;
esac
case " $asked " in *" images "* | *" sounds "* | *" recording "*) make environment >/dev/null && own_files ;; esac
step images make figures ONLY=03_corregularization \
    PARAMS="dataset=folder:$folder/birds train_count=0 test_count=0 vae_epochs=0"
step sounds make figures ONLY=05_emergency_cnn \
    PARAMS="dataset=folder:$folder/sounds train_count=0 test_count=0 emergencies=['까치'] shown=['까치']"
step recording recording
step paper make paper
step site make site
step verify make verify
step test make test
rm -rf "$folder"
