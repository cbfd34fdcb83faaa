"""Why a clip cannot be used: stable codes, documented for those who mend files. Codes never change meaning."""

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
    "TOO_LARGE_DIM": "a side or the area of the picture is over the limit",
    "TOO_LONG": "it lasts longer than decode.max_duration_s",
    "DECODE_TIMEOUT": "decoding took longer than decode.timeout_s; the child was killed",
    "DECODE_MEM": "decoding needed more memory than decode.max_child_mb",
    "DECODER_CRASH": "the decoder died on it, twice",
    "CORRUPT_FRAMES": "too many packets are damaged",
    "NONFINITE_FEATURE": "an encoder gave a value that is not finite",
    "IO_ERROR": "reading failed; worth a retry",
}
