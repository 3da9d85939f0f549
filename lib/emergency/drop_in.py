"""A widget: drop in a recording, and see what the recogniser makes of it."""

import tempfile
from pathlib import Path

import ipywidgets
from IPython.display import display

from lib.data.catalog import DataError
from lib.data.decoding import RATE, decode
from lib.emergency import recognition_figures as drawings
from lib.emergency import voting
from lib.emergency.listener import WINDOW
from lib.emergency.recogniser import Recogniser


def drop_in(recogniser: Recogniser) -> ipywidgets.VBox:
    """A button for a file of any common format, and below it the timeline and the alerts.

    The file is read on the machine that runs the notebook, and nothing of it is kept.
    """
    button = ipywidgets.FileUpload(accept="audio/*,video/*", description="Recording")
    below = ipywidgets.Output()

    def heard(change: dict) -> None:
        below.clear_output()
        with below:
            for file in change["new"]:
                _show(recogniser, file["name"], bytes(file["content"]))

    button.observe(heard, "value")
    return ipywidgets.VBox([button, below])


def _show(recogniser: Recogniser, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        try:
            samples = decode(path)
        except DataError as error:
            print(str(error).replace(f"{folder}/", ""))
            return
    if len(samples) < WINDOW * RATE:
        print(f"{name} is {len(samples) / RATE:.1f} s long; the recogniser listens to {WINDOW:g} s at a time.")
        return
    found = voting.follow(recogniser, samples)
    display(drawings.recording(found))
    for alert in found["alerts"]:
        print(alert.message())
    if not found["alerts"]:
        print("No alert.")
