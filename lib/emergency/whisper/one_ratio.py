"""Train one ratio of notebook 04's sweep, as a job of its own: beside the others, or on several GPUs.

    python -m lib.emergency.whisper.one_ratio --profile paper --seed 0 --ratio 0.3
    accelerate launch --multi_gpu -m lib.emergency.whisper.one_ratio --profile paper --seed 0 --ratio 0.3
    sbatch --array=0-6 --gres=gpu:1 --wrap 'r=(0 .1 .3 .5 .7 .9 1); python -m lib.emergency.whisper.one_ratio
        --profile paper --ratio ${r[$SLURM_ARRAY_TASK_ID]}'

It leaves the checkpoint that the notebook looks for. `make figures PROFILE=paper` afterwards finds the trainings done
and goes on from them; ratios that are missing it trains itself.
"""

import argparse
import sys
from dataclasses import replace

from lib.data.catalog import DataError
from lib.emergency.whisper import experiments as recognition
from lib.press import jobs
from lib.press.parameters import ParameterError
from lib.training import TrainingError

NOTEBOOK = "04_emergency_whisper"


def train(profile: str, seed: int, ratio: float, params: str = "") -> None:
    """Train to the last epoch, from the checkpoint that there is. `params` as those of `make figures`.

    ParameterError for a ratio that the notebook would not look for.
    """
    (job,) = (job for job in jobs.select(profile, str(seed), NOTEBOOK, params) if job.notebook == NOTEBOOK)
    if ratio not in job.values["ratios"]:
        known = ", ".join(f"{each:g}" for each in job.values["ratios"])
        raise ParameterError(f"{ratio:g} is none of the ratios of profile {profile}: {known}")
    where = {"seed": seed, "checkpoints": jobs.checkpoints(job.name)}
    task = recognition.prepared(recognition.task(job.values), **where)
    trial = replace(task.settings, epochs=job.values["ratio_epochs"])
    recognition.training(task.fresh, task.clips, task.validation, trial, ratio, **where)()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.emergency.whisper.one_ratio", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratio", type=float, required=True, help="of the text's loss, one of the profile's")
    parser.add_argument("--params", default="", help="as PARAMS of `make figures`")
    options = parser.parse_args(arguments)
    try:
        train(options.profile, options.seed, options.ratio, options.params)
    except (DataError, ParameterError, TrainingError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
