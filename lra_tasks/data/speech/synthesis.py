"""Words spoken by espeak-ng: its voices as speakers, and a clip of a second from one of them.

A voice is an accent of English and a variant, which sets pitch, formants and breath. Variants whose names differ in a
number alone are one speaker.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np

from lra_tasks.data.errors import DataError

ACCENTS = (
    "en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
)  # fmt: skip
VARIANTS = (
    "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb",
    "david", "Demonic", "Denis", "Diogo", "ed", "edward", "edward2", "Gene", "Gene2", "gustave", "announcer",
    "Henrique", "Hugo", "iven", "iven2", "iven3", "iven4", "Jacky", "john", "kaukovalta", "Lee", "linda", "marcelo",
    "Marco", "Mario", "max", "Michael", "michel", "miguel", "mike", "Nguyen", "pablo", "paul", "pedro", "quincy",
    "RicishayMax", "RicishayMax2", "RicishayMax3", "rob", "robert", "robosoft", "robosoft2", "robosoft3", "robosoft4",
    "robosoft5", "robosoft6", "robosoft7", "robosoft8", "steph", "steph2", "steph3", "Storm", "Tweaky", "UniRobot",
    "zac", "anika", "anikaRobot", "AnxiousAndy", "f1", "f2", "f3", "f4", "f5", "whisperf", "grandpa", "klatt", "klatt2",
    "klatt3", "klatt4", "klatt5", "klatt6", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "norbert", "sandro",
    "shelby", "travis", "victor", "whisper", "croak", "grandma",
)  # fmt: skip
SPEEDS, PITCHES = (120, 220), (20, 80)
"""Words a minute, and the pitch of 0 to 99: least and most."""
RATE = 16000
GET = "`apt-get install espeak-ng` (or your system's package of it), then again"
SPEAKER_SEED = 42
_HELD_OUT = 10
"""Speakers to validate on, and as many to test on."""
_SILENT = 0.01
"""What is below this share of the loudest sample, before a word and after it, is cut off."""
_QUIETEST = 0.25
"""The loudest sample of the quietest clips; that of the loudest is 1."""


def missing() -> str | None:
    """What this machine lacks to speak, or None."""
    return None if shutil.which("espeak-ng") else f"espeak-ng, which speaks the words, is not installed: {GET}"


def version() -> str:
    """The synthesiser's version.

    Raises:
        DataError: it is missing, or lacks voices.
    """
    installed = _listed("variant") + _listed("en")
    lacking = [name for name in (*VARIANTS, *ACCENTS) if name.lower() not in installed]
    if lacking:
        raise DataError(f"this espeak-ng lacks the voices {' '.join(lacking)}: 1.51 or later has them, and its data")
    text = _run(["--version"]).decode(errors="replace").partition("  Data at")[0]
    return text.strip()


def _listed(language: str) -> list[str]:
    """The languages and the files of the voices that are listed for a language."""
    words = _run([f"--voices={language}"]).decode(errors="replace").lower().split()
    return [word.removeprefix("!v/") for word in words]


@cache
def speakers() -> dict[str, list[tuple[str, ...]]]:
    """The variants of every speaker of a split; which speakers are held out depends on the names alone.

    >>> parts = speakers()
    >>> [len(parts[split]) for split in ("train", "val", "test")]
    [47, 10, 10]
    """
    grouped: dict[str, list[str]] = {}
    for variant in VARIANTS:
        grouped.setdefault(variant.rstrip("0123456789").lower(), []).append(variant)
    names = [tuple(grouped[name]) for name in sorted(grouped)]
    order = [names[number] for number in np.random.default_rng(SPEAKER_SEED).permutation(len(names))]
    return {"val": order[:_HELD_OUT], "test": order[_HELD_OUT : 2 * _HELD_OUT], "train": order[2 * _HELD_OUT :]}


def speak(word: str, split: str, random: np.random.Generator) -> np.ndarray:
    """A clip int16 (16000,) of a word by a random speaker of a split; accent, speed, pitch, level and place are random.

    Raises:
        DataError: espeak-ng is missing or fails.
    """
    variants = [variant for speaker in speakers()[split] for variant in speaker]
    voice = f"{random.choice(ACCENTS)}+{random.choice(variants)}"
    speed, pitch = (int(random.integers(low, high + 1)) for low, high in (SPEEDS, PITCHES))
    sound = trim(resample(*_sound(word, voice, speed, pitch)))
    level = _QUIETEST ** random.random() / max(float(np.abs(sound).max(initial=0.0)), 1e-9)
    spare = max(RATE - len(sound), 0)
    start = int(random.integers(spare + 1))
    clip = np.zeros(RATE, np.int16)
    cut = max(len(sound) - RATE, 0) // 2
    sound = sound[cut : cut + RATE]
    clip[start : start + len(sound)] = np.round(sound * (level * 32767))
    return clip


def trim(sound: np.ndarray) -> np.ndarray:
    """The samples from the first to the last that is no silence.

    >>> trim(np.array([0.0, 0.001, 1.0, 0.0, -0.5, 0.0])).tolist()
    [1.0, 0.0, -0.5]
    """
    loud = np.flatnonzero(np.abs(sound) > _SILENT * np.abs(sound).max(initial=0.0))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:0]


def resample(sound: np.ndarray, rate: int) -> np.ndarray:
    """The sound at 16000 samples a second: what is above the lower half rate is left out of its Fourier series.

    >>> t = np.arange(22050) / 22050
    >>> tone = resample(np.sin(2 * np.pi * 300 * t), 22050)
    >>> len(tone), bool(np.abs(tone - np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)).max() < 1e-9)
    (16000, True)
    """
    step = rate // np.gcd(rate, RATE)
    padded = np.pad(sound.astype(np.float64), (0, -len(sound) % step))
    length = len(padded) // step * (RATE // np.gcd(rate, RATE))
    if not length:
        return padded
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    spectrum = np.pad(spectrum, (0, length // 2 + 1 - len(spectrum)))
    return np.fft.irfft(spectrum, length) * (length / len(padded))


def _sound(word: str, voice: str, speed: int, pitch: int) -> tuple[np.ndarray, int]:
    """The samples of a word and their rate."""
    content = _run(["-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word])
    form = np.frombuffer(content[20:36], "<u2") if len(content) > 44 else np.zeros(8, np.uint16)
    if content[:4] != b"RIFF" or content[36:40] != b"data" or form[0] != 1 or form[1] != 1 or form[7] != 16:
        raise DataError(f"espeak-ng answered {word!r} in the voice {voice} with no sound of 16 bits: {GET}")
    samples = np.frombuffer(content[44 : len(content) // 2 * 2], "<i2")
    return samples, int(np.frombuffer(content[24:28], "<u4")[0])


def _run(arguments: list[str]) -> bytes:
    try:
        done = subprocess.run(["espeak-ng", *arguments], capture_output=True, check=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise DataError(missing() or f"espeak-ng cannot be run: {GET}") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
        raise DataError(f"espeak-ng {' '.join(arguments)} failed ({message}): {GET}") from error
    return done.stdout
