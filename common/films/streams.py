"""What a compressed picture says of itself, whatever the header around it says; JPEG of 12 bits."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_SEQUENTIAL = (0xFFC0, 0xFFC1)  # JPEG Baseline and Extended, Huffman-coded


@dataclass(frozen=True)
class Stream:
    """The frame header of a JPEG, JPEG-LS or JPEG 2000 picture.

    Attributes:
        height: Rows.
        width: Columns.
        bits: Precision of a sample, 1 to 38.
        components: Samples of a pixel.
        signed: Whether samples are signed; None where the format cannot say it (all but JPEG 2000).
        sequential: It is JPEG Baseline or Extended.
    """

    height: int
    width: int
    bits: int
    components: int
    signed: bool | None
    sequential: bool

    @classmethod
    def of(cls, frame: bytes) -> Stream:
        """Read the SOF marker of a JPEG or JPEG-LS, or the SIZ marker of a JPEG 2000 picture.

        Raises:
            Exception: Whatever Python raises for what is cut short or damaged.
        """
        if not frame.startswith(b"\xff\xd8"):
            size = frame.index(b"\xff\x4f\xff\x51")  # may be wrapped as JP2
            right, bottom, left, top = struct.unpack_from(">4I", frame, size + 8)
            components, depth = struct.unpack_from(">HB", frame, size + 40)
            return cls(bottom - top, right - left, (depth & 0x7F) + 1, components, depth > 0x7F, False)
        at = 2
        while True:
            marker, length = struct.unpack_from(">2H", frame, at)
            if marker < 0xFF00:
                raise ValueError("no marker where one must be")
            if marker == 0xFFFF:  # a fill byte
                at += 1
            elif marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
                bits, height, width, components = struct.unpack_from(">B2HB", frame, at + 4)
                return cls(height, width, bits, components, None, marker in _SEQUENTIAL)
            else:
                at += 2 + length


def decode_12_bit_jpeg(frame: bytes, height: int, width: int) -> np.ndarray:
    """A grey JPEG Extended of 12 bits, (height, width) uint16, by GDCM.

    pydicom leaves these to a library under the GPL, since GDCM cuts values down to the header's bits, where
    4098 becomes 2. Told of all 12 bits, GDCM gives the values that libjpeg-turbo gives.

    Raises:
        Exception: GDCM cannot decode it.
    """
    import gdcm  # few films need it

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    content = image.GetBuffer()
    if content is None:
        raise ValueError("damaged")
    # GDCM returns char* as str
    return np.frombuffer(content.encode("utf-8", "surrogateescape"), np.uint16).reshape(height, width)
