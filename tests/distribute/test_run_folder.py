"""A run's folder, as the other processes get it."""

import io
import os
import zipfile

from kanets.distribute.run_folder import _packed


def test_files_without_a_date_are_packed(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    os.utime(tmp_path / "recipe.json", (0, 0))  # before a ZIP's first year
    packed = _packed(tmp_path, ["recipe.json", "log.csv"])
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["recipe.json"]
