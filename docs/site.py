"""A hook of mkdocs: the site's pages are the repository's, where they stand.

Every page of the navigation, every page that one of them leads to, and every
picture, table or script that they show or lead to is a file of the site at
its path in the repository, so that links are those one follows on GitHub. A
link that leads nowhere fails the build, as it is strict.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(\s*<?([^)#?>\s]+)|(?:src|href)=\"([^\"#?]+)\"")


@event_priority(100)  # before plugins that make pages of what they find
def on_files(files, config):
    """The files of the site, in place of those of the folder `docs`."""
    docs = config.docs_dir
    site = Files([file for file in files if file.src_dir != docs])
    styles = [ROOT / style for style in config.extra_css]
    for path in sorted(reached([*paths_of(config.nav), *styles])):
        site.append(
            File(
                path.relative_to(ROOT).as_posix(),
                src_dir=str(ROOT),
                dest_dir=config.site_dir,
                use_directory_urls=config.use_directory_urls,
            )
        )
    return site


def paths_of(item):
    """The paths that a part of the navigation names."""
    if isinstance(item, str):
        return [ROOT / item]
    parts = item.values() if isinstance(item, dict) else item
    return [path for part in parts for path in paths_of(part)]


def reached(starts):
    """The files that these pages, or what they lead to, show or lead to."""
    found, left = set(), list(starts)
    while left:
        path = left.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        if path.suffix == ".md":
            left += targets(path)
    return found


def targets(page):
    """The files of the repository that a page names."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target = unquote("".join(link))
        if ":" not in target:
            path = (page.parent / target).resolve()
            if path.is_relative_to(ROOT):
                yield path
