"""Notebook widgets that run the recogniser on an uploaded or a microphone recording."""

import tempfile
from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import torch
import traitlets
from IPython.display import display
from matplotlib.figure import Figure

from lib.data.catalog import DataError
from lib.emergency import figures
from lib.emergency.cnn.relevance import explain
from lib.emergency.features import RATE, log_mel, scaled
from lib.emergency.recogniser import ensemble, voting
from lib.emergency.recogniser.recogniser import Recogniser, Report
from lib.emergency.whisper import figures as drawings
from lib.emergency.whisper import relevance as encoder_relevance

LONGEST = 60  # seconds, maximum length of a microphone recording


class Microphone(anywidget.AnyWidget):
    """A button that records in the reader's browser; `recording` holds the resulting file (webm, ogg or mp4)."""

    _esm = Path(__file__).with_name("microphone.js")
    recording = traitlets.Bytes().tag(sync=True)
    longest = traitlets.Int(LONGEST).tag(sync=True)  # seconds


def drop_in(recogniser: Recogniser, location: str = "") -> ipywidgets.VBox:
    """Return an upload button for any common format and a microphone button, with the results shown below.

    Files are processed on the machine that runs the notebook; the microphone is that of the reader's browser. No
    recording is kept and no alert is sent.
    """
    upload = ipywidgets.FileUpload(accept="audio/*,video/*", description="Recording")
    microphone, below = Microphone(), ipywidgets.Output()

    def hear(name: str, content: bytes) -> None:
        below.clear_output()
        with below:
            show(recogniser, name, content, location)

    upload.observe(lambda change: [hear(file["name"], bytes(file["content"])) for file in change["new"]], "value")
    microphone.observe(lambda change: change["new"] and hear("The recording", change["new"]), "recording")
    return ipywidgets.VBox([ipywidgets.HBox([upload, microphone]), below])


def show(recogniser: Recogniser, name: str, content: bytes, location: str = "") -> None:
    """Display timeline, relevance, votes, words and alerts for a file's `content`, or print why it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"  # a name from the browser may be too long for this disk, or missing
        path.write_bytes(content)
        try:
            report = recogniser.follow(path, location)
        except (DataError, ValueError) as error:
            print(str(error).replace(str(path), name))
            return
    display(*pictures(recogniser, report), vote_table(recogniser, report))
    print(f'Words: "{report.opinion.texts[0]}"' if report.opinion.texts[0] else "No words.")
    print("\n".join(alert.message() for alert in report.alerts) or "No alert.")


def vote_table(recogniser: Recogniser, report: Report) -> pd.DataFrame:
    """Return a row per voter and one for the vote on `report.window`: voter, prediction, emergency (probability)."""
    votes, alarming = recogniser.calibrated_votes(report.opinion), list(recogniser.alarming)
    rows = []
    for name, logits in votes.items():
        named = "no words" if logits.isnan().any() else recogniser.classes[int(logits.argmax())]
        rows.append((name, named, float(logits.softmax(1)[0, alarming].sum())))
    upheld = bool(ensemble.majority(votes, alarming))
    probability = float(ensemble.mean_probability(votes).exp()[0, alarming].sum())
    rows.append(("2 of 3", "an emergency" if upheld else "no emergency", probability))
    return pd.DataFrame(rows, columns=["voter", "prediction", "emergency"])


def pictures(recogniser: Recogniser, report: Report) -> tuple[Figure, Figure]:
    """Return the timeline, and the spectrogram of `report.window` with the relevance for its predicted class."""
    samples, bands = scaled(torch.from_numpy(report.window)[None]), recogniser.whisper.mels
    mel = log_mel(samples)
    number = ensemble.mean_probability(recogniser.calibrated_votes(report.opinion)).argmax(1)
    of_cnn = explain(recogniser.cnn, mel[:, None], number)[0]
    of_encoder = encoder_relevance.explain(recogniser.whisper, log_mel(samples, bands), number)
    maps = [one[0].numpy() for one in (of_cnn, of_encoder)]  # 80 and possibly 128 bands, over the same mel axis
    names = [f"{recogniser.classes[int(number)]} ({network})" for network in ("CNN", "encoder")]
    found = {"mel": mel.expand(2, -1, -1).numpy(), "relevance": maps, "names": names,
             "taken_for": names, "spans": np.zeros((0, 4))}  # fmt: skip
    timeline = voting.recording_arrays(recogniser, report.window, report) | {"at": report.at}
    return drawings.recording(timeline), figures.relevance(found, len(report.window) / RATE)
