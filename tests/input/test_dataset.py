"""A prepared dataset opens without heavy libraries, and says what is wrong when it cannot."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.input import open_dataset

from .conftest import CLASSES, CLIPS, SIDE


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copytree(dataset.path, tmp_path / "data")


def test_the_index_has_typed_columns_in_stored_order(dataset):
    assert dataset.name == "synthetic"
    assert dataset.classes == CLASSES
    assert len(dataset) == len(dataset.source) == CLIPS
    assert dataset.index["seconds"].dtype == np.float64
    assert dataset.index["actor"][0] == "1001"
    assert dataset.index["age"][0] == -1
    for row in (0, 5, CLIPS - 1):
        record = dataset.source[row]
        assert record["clip_id"].decode() == dataset.index["clip_id"][row]
        assert len(record["frames"]) == dataset.index["frames"][row]


def test_images_stay_encoded_until_they_are_used(dataset):
    assert dataset.source[0]["frames"][0][:2] == b"\xff\xd8"


def test_reading_needs_no_media_or_table_library(dataset):
    program = f"""
import sys
for name in ("av", "librosa", "pyarrow", "torch", "tensorflow", "pandas", "sklearn"):
    assert name not in sys.modules
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("av", "librosa", "pyarrow", "torch", "pandas", "sklearn"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from aver_jax.input import ClipShape, Loader, open_dataset, training_batches
dataset = open_dataset({str(dataset.path)!r})
labels = np.zeros({CLIPS}, np.int32)
batches = training_batches(
    dataset, np.arange({CLIPS}), labels,
    Loader(ClipShape(image_size={SIDE}, modalities=("video", "audio")), 4), seed=0,
)
print(next(batches)["frames"].shape)
assert "tensorflow" not in sys.modules
batches.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"(4, 8, {SIDE}, {SIDE}, 3)"
    assert done.stderr == ""


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"no dataset at .*nowhere.*aver prepare"):
        open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["index.csv", "preparation.json", "dataset_info.json"])
def test_half_a_dataset_names_the_part_that_is_missing(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        open_dataset(copy)


def test_a_missing_record_file_is_named(copy):
    (shard,) = copy.glob("*array_record*")
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        open_dataset(copy)


def test_a_truncated_record_file_is_a_clear_error(copy):
    (shard,) = copy.glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        open_dataset(copy)


def test_an_index_with_fewer_rows_than_records_is_refused(copy):
    lines = (copy / "index.csv").read_text().splitlines()
    (copy / "index.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match=f"{CLIPS} records .* {CLIPS - 1} rows"):
        open_dataset(copy)


def test_an_index_of_another_dataset_is_noticed(copy):
    text = (copy / "index.csv").read_text()
    (copy / "index.csv").write_text(text.replace("clip00", "other"))
    with pytest.raises(UserError, match=r"record 0 .* is clip00, its index.csv says other"):
        open_dataset(copy)


def test_a_sorted_index_is_noticed(copy):
    head, *rows = (copy / "index.csv").read_text().splitlines()
    (copy / "index.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    with pytest.raises(UserError, match="column row"):
        open_dataset(copy)


def test_an_index_without_a_column_names_it(copy):
    text = (copy / "index.csv").read_text()
    (copy / "index.csv").write_text(text.replace("multimodal_vote", "votes", 1))
    with pytest.raises(UserError, match="lacks the columns multimodal_vote"):
        open_dataset(copy)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_preparation_file_is_a_clear_error(copy, text):
    (copy / "preparation.json").write_text(text)
    with pytest.raises(UserError, match=r"preparation\.json"):
        open_dataset(copy)
