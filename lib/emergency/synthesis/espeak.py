"""Worker of `speech`: speak lines with espeak-ng in a separate process.

espeak-ng carries state from one line to the next, so a line is reproducible only in a fresh process that
has spoken the same lines before it. Requires only the standard library and `espeakng_loader`.

stdin: JSON, a list of [text, variant of the Korean voice, words per minute, pitch 0..100].
stdout: one line of JSON, [rate in Hz, [number of samples of each line]], then all samples, 16 bits each.
"""

import ctypes
import json
import sys

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback receives all samples before espeak_Synth returns
_UTF8 = 1
_RATE, _PITCH = 1, 3  # espeak_PARAMETER


def main() -> None:
    import espeakng_loader  # imported here so that a missing wheel becomes an exit code of this process

    lines = json.load(sys.stdin)
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    heard, lengths = bytearray(), []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def hear(samples, count, _events):
        if samples and count > 0:
            heard.extend(ctypes.string_at(samples, 2 * count))
        return 0

    data = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
    if rate <= 0:
        raise OSError(f"espeak-ng could not read its data in {espeakng_loader.get_data_path()}.")
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_SetSynthCallback(hear)
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
        ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    for text, voice, speed, pitch in lines:
        if library.espeak_SetVoiceByName(f"ko+{voice}".encode()) != 0:
            raise OSError(f"espeak-ng has no voice ko+{voice}.")
        library.espeak_SetParameter(_RATE, speed, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        library.espeak_ng_SetRandSeed(1)
        before = len(heard)
        encoded = text.encode()
        if library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None) != 0:
            raise OSError(f"espeak-ng could not say {text}.")
        lengths.append((len(heard) - before) // 2)
    sys.stdout.buffer.write(json.dumps([rate, lengths]).encode() + b"\n" + heard)


if __name__ == "__main__":
    main()
