"""The folder of Speech Commands 0.02.

It holds ``<word>/<speaker>_nohash_<number>.wav``, ``validation_list.txt`` and ``testing_list.txt``. A clip has one
channel of 16-bit samples, 16,000 a second, and lasts at most a second. The lists name the clips to validate and to test
on as ``<word>/<file>``, one a line; all others are to train on. No speaker is in two of the three.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from lra_tasks.data.errors import DataError
from lra_tasks.data.official import first_folder

RATE = 16000
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
ARCHIVE = "speech_commands_v0.02.tar.gz"
_LAYOUTS = ("", "speech_commands_v0.02", "SpeechCommands", "SpeechCommands/speech_commands_v0.02")
_GET = f"unpack http://download.tensorflow.org/data/{ARCHIVE}"


def find_clips(folder: Path, words: tuple[str, ...]) -> Path:
    """The folder with the words' folders and the lists: ``folder`` or one below it.

    Raises:
        DataError: it is not there, or a word or a list is missing.
    """
    found = first_folder(folder, _LAYOUTS, LISTS["test"])
    if found is None:
        raise DataError(
            f"no Speech Commands 0.02 (a folder for each word, {' and '.join(LISTS.values())}) in {folder} or its "
            f"{' or '.join(_LAYOUTS[1:])}: {_GET} there, or name its folder with --data.official_dir"
        )
    missing = [name for name in (*LISTS.values(), *words) if not (found / name).exists()]
    if missing:
        raise DataError(f"{found / missing[0]} is missing: {_GET} there again")
    return found


def list_clips(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Every clip as ``<word>/<file>``, in the order of the words and by name."""
    clips = [f"{word}/{path.name}" for word in words for path in sorted((folder / word).glob("*.wav"))]
    for word in words:
        if not any(clip.startswith(f"{word}/") for clip in clips):
            raise DataError(f"{folder / word} has no .wav: {_GET} there again")
    return clips


def read_lists(folder: Path, words: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The clips of the two lists.

    Raises:
        DataError: a list names a clip that is not there, or no clip of the words; or a clip is in both.
    """
    lists: dict[str, frozenset[str]] = {}
    for split, name in LISTS.items():
        lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if not (folder / line).is_file() or line.count("/") != 1:
                raise DataError(f"{folder / name}, line {number}: there is no clip {line[:80]!r}: {_GET} again")
        lists[split] = frozenset(line for line in lines if line.split("/")[0] in words)
        if not lists[split]:
            raise DataError(f"{folder / name} names no clip of the words {' '.join(words)}: {_GET} again")
    both = sorted(lists["val"] & lists["test"])
    if both:
        raise DataError(f"{both[0]} is in both {' and '.join(LISTS.values())}: {_GET} again")
    return lists


def count_samples(path: Path) -> int:
    """How many samples a clip has, by its header.

    Raises:
        DataError: it is corrupt or of another form.
    """
    return _read(path, header_only=True)[0]


def read_clip(path: Path) -> np.ndarray:
    """The samples of a clip, int16 (16000,): zeros after a shorter one, a longer one cut.

    Raises:
        DataError: it is corrupt, cut off or of another form.
    """
    count, content = _read(path)
    if len(content) != 2 * count:
        raise DataError(f"{path} has {len(content) // 2} samples, {count} by its header: is it cut off? {_GET} again")
    samples = np.zeros(RATE, np.int16)
    read = np.frombuffer(content, "<i2")[:RATE]
    samples[: len(read)] = read
    return samples


def _read(path: Path, header_only: bool = False) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file, wave.open(file) as clip:
            form = (clip.getnchannels(), clip.getsampwidth(), clip.getframerate())
            count = clip.getnframes()
            content = b"" if header_only else clip.readframes(count)
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path} is corrupt ({error or 'it ends too early'}): {_GET} again") from error
    if form != (1, 2, RATE):
        raise DataError(
            f"{path} has {form[0]} channel(s) of {8 * form[1]}-bit samples, {form[2]} a second, expected 1, 16-bit, "
            f"{RATE}"
        )
    return count, content
