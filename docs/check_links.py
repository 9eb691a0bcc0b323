"""Do the outside links of the repository's pages still lead somewhere?

    python docs/check_links.py

Asks for every http address outside of code on the Markdown pages that git
knows; links inside the repository are checked by `make docs`. Ends with 1, and
a line for each, where an address answers with an error or not at all, and
where there is no network. Addresses that are refused to programs (401, 403,
429) are named, and are no failure.
"""

import collections
import concurrent.futures
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^ *(```|~~~).*?^ *\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"https?://(?:[^\s()<>\"\]]|\([^\s()<>]*\))+")
LOCAL = ("http://127.0.0.1", "http://localhost")
HEADERS = {"User-Agent": "Mozilla/5.0 (a check of links)"}
REFUSED = {401, 403, 429}
SECONDS = 30


def outside(text):
    """The http addresses that a page of Markdown names, in order."""
    links = LINK.findall(CODE.sub("", text))
    links = (link.split("#")[0].rstrip(".,;:!?*'") for link in links)
    return [k for k in dict.fromkeys(links) if not k.startswith(LOCAL)]


def status(address):
    """The HTTP status of an address, or the reason why there is none."""
    for method in ("HEAD", "GET"):
        request = urllib.request.Request(
            address, headers=HEADERS, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            found = error.code  # some know no HEAD
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))
    return found


def complaints(pages):
    """What is to be said of the links of some pages.

    Args:
        pages: dict from the name of a page to its text.

    Returns:
        A list of lines, and whether they are of failures.
    """
    named = collections.defaultdict(list)
    for name, text in pages.items():
        for address in outside(text):
            named[address].append(name)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = dict(zip(named, pool.map(status, named), strict=True))
    if found and not any(isinstance(what, int) for what in found.values()):
        why = next(iter(found.values()))
        return [f"No network: none of {len(found)} links answered ({why})"], 1
    lines, failed = [], 0
    for address, what in found.items():
        if what in REFUSED or not (isinstance(what, int) and what < 400):
            failed += what not in REFUSED
            pages = ", ".join(named[address])
            lines.append(f"{what}: {address} ({pages})")
    return [*lines, f"{len(found)} links, {failed} broken"], failed


def main():
    listed = subprocess.run(
        ["git", "ls-files", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.splitlines()
    lines, failed = complaints(
        {name: (ROOT / name).read_text() for name in names}
    )
    print("\n".join(lines))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
