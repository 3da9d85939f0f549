"""Write the repository's public address wherever Binder, Colab and the badges need it.

    python binder/address.py https://github.com/you/four-studies

It stands in no other place; the current one is read from `pyproject.toml`.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORM = r"https://github\.com/([\w.-]+)/([\w.-]+)"


def files() -> list[Path]:
    """Return all files that contain the address or a part of it."""
    return [ROOT / "pyproject.toml", ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def current() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]


def change(address: str) -> int:
    """Replace the current address and return the number of files changed; ValueError if it is not of the `FORM`."""
    if not (new := re.fullmatch(FORM, address.removesuffix("/").removesuffix(".git"))):
        raise ValueError(f"{address!r} is not an address of the form https://github.com/you/four-studies")
    old = re.fullmatch(FORM, current())
    count = 0
    for path in files():
        before = path.read_text(encoding="utf-8")
        # Badges write owner/name after other hosts: github/owner/name, gh/owner/name.
        pattern = rf"(github\.com|/github|/gh)/{re.escape(old[1])}/{re.escape(old[2])}(?![\w-])"
        after = re.sub(pattern, rf"\g<1>/{new[1]}/{new[2]}", before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            count += 1
    return count


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(f"{change(sys.argv[1])} files changed")
    except ValueError as error:
        sys.exit(f"Error: {error}")
