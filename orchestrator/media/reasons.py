"""Why a clip cannot be used (codes) and what was odd but usable (flags). Meanings never change."""

from typing import Final

REASONS: Final = {
    "NOT_REGULAR": "a directory, a pipe, a device or a socket, not a file",
    "OUTSIDE_ROOT": "the path leaves the data root, by .. or by a symbolic link",
    "BAD_SCHEME": "the path is a protocol (http:, concat:, ...), not a file",
    "EMPTY": "the file has no bytes",
    "TOO_BIG": "the file is larger than decode.max_bytes",
    "BAD_MAGIC": "the first bytes are not those of a video container that is allowed",
    "NO_VIDEO": "the container holds neither pictures nor sound",
    "UNDECODABLE": "the decoder refused it",
    "TRUNCATED": "much less could be decoded than the file declares",
    "TIMELINE_IMPLAUSIBLE": "durations, counts and rates of the file contradict each other",
    "TOO_LARGE_DIM": "a side of the picture is over decode.max_side_px",
    "TOO_LONG": "it lasts longer than decode.max_duration_s",
    "DECODE_TIMEOUT": "decoding took longer than decode.timeout_s; the child was killed",
    "DECODE_MEM": "decoding needed more memory than decode.max_child_mb",
    "DECODER_CRASH": "the decoder died on it, twice",
    "CORRUPT_FRAMES": "more than a tenth of the pictures or of the sound is damaged",
    "NONFINITE_FEATURE": "an encoder gave a value that is not finite",
    "IO_ERROR": "the file could not be read; `retry` tries it again",
}

FLAGS: Final = {
    "NO_VIDEO": "no picture: the video modality is absent",
    "NO_AUDIO": "no sound: the audio modality is absent",
    "NO_FACE": "no face was found: the middle of the picture was taken",
    "SILENT": "the sound is there and is nothing but silence",
    "DAMAGED": "some pictures or some sound are damaged, a tenth at most",
    "VFR": "the frame rate varies",
    "ROTATED": "the pictures were turned or mirrored as the file asks",
    "EDITED": "an edit list hides stored pictures",
    "MULTI_STREAM": "several picture or sound streams: the best of each was taken",
    "RESIZED": "the size of the picture changes within the clip: all were brought to that of the first",
    "AV_MISMATCH": "sound and pictures differ in length by more than a fifth",
}
