# SPDX-License-Identifier: GPL-2.0
"""Layouts of structures and unions, as BTF says them (Documentation/bpf/btf.rst)."""
import struct
from elf import Elf, cstr

STRUCT, UNION = 4, 5
# bytes behind a type, for each kind: fixed, and for each of its members
EXTRA = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0),
         15: (0, 12), 17: (4, 0), 19: (0, 12)}


class Btf:
    """The types of one file: raw, or in a section .BTF."""

    def __init__(self, path):
        with open(path, 'rb') as f:
            data = f.read()
        if data[:4] == b'\x7fELF':
            section = Elf(path).section('.BTF')
            if not section:
                raise ValueError(f'{path}: no .BTF')
            data = section.data
        magic, _, _, hdr, type_off, type_len, str_off, str_len = \
            struct.unpack_from('<HBBIIIII', data)
        if magic != 0xeb9f:
            raise ValueError(f'{path}: no BTF')
        self.strings = data[hdr + str_off:hdr + str_off + str_len]
        self.data = data[hdr + type_off:hdr + type_off + type_len]

    def types(self):
        """name -> [(size, ((member, bit offset), ...)), ...]"""
        out, at = {}, 0
        while at < len(self.data):
            name, info, size = struct.unpack_from('<III', self.data, at)
            at += 12
            kind, count = info >> 24 & 31, info & 0xffff
            if kind in (STRUCT, UNION) and name:
                members = []
                for i in range(count):
                    n, _, off = struct.unpack_from('<III', self.data, at + 12 * i)
                    members.append((cstr(self.strings, n), off))
                key = ('struct ' if kind == STRUCT else 'union ') + cstr(self.strings, name)
                out.setdefault(key, []).append((size, tuple(members)))
            fixed, each = EXTRA.get(kind, (0, 0))
            at += fixed + each * count
        return out
