"""A Windows DLL without code, whose one export is another DLL's: what Wine 8 lacks, without a compiler.

Rust's wheels import `ProcessPrng` from bcryptprimitives.dll, which Debian's Wine 8 does not have; advapi32's
`SystemFunction036` takes the same arguments and does the same. Format: Microsoft's PE/COFF specification.
"""

from __future__ import annotations

import struct

RVA, RAW, ALIGN = 0x1000, 0x200, 0x200  # of the only section


def forwarding_dll(name: str, export: str, target: str) -> bytes:
    """The bytes of `name` (such as "x.dll"), 64-bit, exporting `export` as `target` ("dll.function")."""
    exports = _export_section(name.encode(), export.encode(), target.encode())
    size = len(exports)
    exports += bytes(-size % ALIGN)
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x2022)  # a DLL for x86-64
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, len(exports), 0, 0, RVA)
    optional += struct.pack("<QII6HIIII", 0x1_8000_0000, 0x1000, ALIGN, 6, 0, 0, 0, 6, 0, 0, RVA + 0x1000, RAW, 0)
    optional += struct.pack("<HHQQQQII", 2, 0x160, 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16)
    optional += struct.pack("<II", RVA, size) + bytes(15 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".edata", size, RVA, len(exports), RAW, 0, 0, 0, 0, 0x4000_0040)
    return (dos + coff + optional + section).ljust(RAW, b"\0") + exports


def _export_section(name: bytes, export: bytes, target: bytes) -> bytes:
    """The export directory with one named function. An address inside the directory is a forward by name."""
    addresses = RVA + 40
    texts = addresses + 4 + 4 + 2  # after one address, one name pointer, one ordinal
    at_name, at_export = texts, texts + len(name) + 1
    at_target = at_export + len(export) + 1
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, at_name, 1, 1, 1, addresses, addresses + 4, addresses + 8)
    return directory + struct.pack("<IIH", at_target, at_export, 0) + b"\0".join((name, export, target, b""))
