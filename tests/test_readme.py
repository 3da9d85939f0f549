"""The README's table of results: each of our numbers is looked up in the stored tables.

`python tests/test_readme.py` writes the block anew after results have changed.
"""

from pathlib import Path

import pandas as pd
from toy import ROOT

from lib.press import claims

START = "<!-- results: written by `python tests/test_readme.py`, which reads figures/ -->"
END = "<!-- end of results -->"
PICTURES = "CIFAR-10 (JPEG copy), {}, 3 seeds"
ESC = "ESC-50 (50 classes), folds 1 to 4 in turn, 3 seeds"
SCENES = "scenes with recorded sounds, 600 clips, Whisper-base, 1 seed"


def look_up(table: str, rows: dict[str, str], column: str, digits: int, spread: str = "") -> str:
    """Return one cell of figures/<table>.csv as text, with ± sd if `spread` names its column."""
    found = pd.read_csv(ROOT / "figures" / f"{table}.csv")
    for name, value in rows.items():
        found = found[found[name].astype(str) == value]
    (row,) = found.to_dict("records")
    return f"{row[column]:.{digits}f}" + (f" ± {row[spread]:.{digits}f}" if spread else "")


def first(arm: str, column: str, digits: int) -> str:
    rows = {"arm": arm, "sources": "training" if arm == "pyramid GAN" else "none"}
    return look_up("public/tab11_fid_lpips", rows, column, digits, f"{column}_sd")


def seeds(table: str, rows: dict[str, str]) -> str:
    return look_up(f"public/{table}", rows, "mean", 1, "sd")


def scenes(measure: str, column: str = "value") -> str:
    return look_up("trained/seed-0/tab44_recognition", {"measure": measure}, column, 1)


def vote(voter: str, column: str = "binary_accuracy") -> str:
    return look_up("trained/seed-0/tab43_ensemble", {"voter": voter}, column, 1)


def block() -> str:
    source = {claim.id: claim.value for claim in claims.load()}
    binary = ("encoder-binary", "cnn-binary", "decoder-binary", "ensemble")
    clusters, neighbours = "tab21_clustering", "tab22_representation"
    plain, gram = ({"condition": "first experiment", "arm": arm} for arm in ("plain", "Gram"))
    rows = [
        ("1", "Fréchet distance, pyramid GAN against DCGAN (lower is better)",
         f"{source['s1-fid-pyramid']} / {source['s1-fid-dcgan']} (FID)",
         f"{first('pyramid GAN', 'fid', 1)} / {first('DCGAN', 'fid', 1)} (FD-domain)",
         PICTURES.format("2,500 samples")),
        ("1", "LPIPS between samples, pyramid GAN against DCGAN",
         f"{source['s1-lpips-pyramid']} / {source['s1-lpips-dcgan']}",
         f"{first('pyramid GAN', 'lpips_diversity', 4)} / {first('DCGAN', 'lpips_diversity', 4)} (untrained trunk)",
         PICTURES.format("1,000 pairs")),
        ("2", "clusters: soft codes against NT-Xent's embedding, %", "figures only",
         f"{seeds(clusters, {'wanted': '10', 'arm': 'categorical: k-means on soft codes'})} / "
         f"{seeds(clusters, {'wanted': '10', 'arm': 'NT-Xent: k-means on embedding'})}",
         PICTURES.format("20,000 in training")),
        ("2", "nearest neighbours: 16-byte codes against 512-byte embeddings, %", "—",
         f"{seeds(neighbours, {'arm': 'categorical: hard codes'})} / "
         f"{seeds(neighbours, {'arm': 'NT-Xent: embedding'})}", PICTURES.format("20,000 in training")),
        ("3", "accuracy with the Gram penalty against without, %", "figures only",
         f"{seeds('tab31_accuracy', gram)} / {seeds('tab31_accuracy', plain)}", PICTURES.format("50,000 in training")),
        ("4", "frames classified (시간대별), %", f"{source['s4-moments']}",
         f"{scenes('accuracy of moments')} (validation: {scenes('accuracy of moments', 'validation')})", SCENES),
        ("4", "clips classified by the encoder, %", f"{source['s4-encoder-accuracy']}",
         f"{scenes('accuracy of clips')} (validation: {scenes('accuracy of clips', 'validation')})", SCENES),
        ("4", "character error rate, %", f"{source['s4-cer']}",
         f"{scenes('character error rate, seen lines', 'validation')} (training lines in other voices, validation; "
         f"unseen lines: {scenes('character error rate, unseen lines')})", SCENES),
        ("4", "emergency or not: encoder / CNN / text / vote, %",
         " / ".join(f"{source[f's4-{name}']}" for name in binary),
         " / ".join(map(vote, ("Whisper encoder", "CNN", "decoder's text", "2 of 3")))
         + f" (always alarming: {vote('always alarming')})", SCENES),
        ("4", "clips classified on Whisper-base's frozen encoder: head / logistic regression, %", "—",
         " / ".join(look_up("public/tab418_cross_validation", {"classifier": name}, "accuracy", 1, "accuracy_sd")
                    for name in ("head", "logistic regression")), ESC),
        ("4", "clips classified by the CNN, %", f"{source['s4-cnn-accuracy']}",
         look_up("public/tab45_cnn_test", {"outputs": "as trained"}, "accuracy", 1, "accuracy_sd"),
         ESC),
    ]  # fmt: skip
    trained = "trained/seed-0/tab11_fid_lpips"
    if (ROOT / "figures" / f"{trained}.csv").exists():  # features and LPIPS trunk trained on ImageNet
        which = [{"arm": "pyramid GAN", "sources": "training"}, {"arm": "DCGAN"}]
        distances, diversities = (
            " / ".join(look_up(trained, arm, column, digits) for arm in which)
            for column, digits in (("fid", 1), ("lpips_diversity", 4))
        )
        real = look_up(trained, {"arm": "DCGAN"}, "lpips_real", 4)
        on = "CIFAR-10 (JPEG copy), 1,000 samples, 200 pairs, 1 seed"
        rows[1:2] = [
            ("1", "the same in features of VGG16", "—", f"{distances} (FD-VGG16)", on),
            (*rows[1][:3], f"{diversities} (real images: {real}; VGG16 trunk)", on),
        ]
    head = "| study | measure | source | here | on |\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *("| " + " | ".join(row) + " |" for row in rows)])


def split(readme: str) -> tuple[str, str, str]:
    before, rest = readme.split(START)
    shown, after = rest.split(END)
    return before, shown.strip(), after


def test_the_results_are_those_of_the_stored_tables():
    shown = split((ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert shown == block(), "run `python tests/test_readme.py`, and read the text around the table again"


def test_it_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


if __name__ == "__main__":
    path = Path(ROOT, "README.md")
    before, _, after = split(path.read_text(encoding="utf-8"))
    path.write_text(f"{before}{START}\n{block()}\n{END}{after}", encoding="utf-8")
