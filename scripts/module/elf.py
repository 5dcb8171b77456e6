# SPDX-License-Identifier: GPL-2.0
"""As much of 64-bit little-endian ELF as modules and kernel images need."""
import struct

SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 2, 4, 8
SHF_ALLOC, SHF_EXECINSTR, SHF_INFO_LINK, SHF_RELA_LIVEPATCH = 2, 4, 0x40, 0x100000
SHN_UNDEF, SHN_LIVEPATCH = 0, 0xff20
STB_LOCAL = 0
HEADER = '<IIQQQQIIQQ'


class Section:
    """A section header, and what it describes."""

    def __init__(self, data, fields, strings=None):
        (self.name_at, self.type, self.flags, self.addr, self.offset, self.size,
         self.link, self.info, self.align, self.entsize) = fields
        self.data = b'' if self.type == SHT_NOBITS else \
            data[self.offset:self.offset + self.size]
        self.name = cstr(strings, self.name_at) if strings else ''

    def header(self):
        """As it is in the file."""
        return struct.pack(HEADER, self.name_at, self.type, self.flags, self.addr,
                           self.offset, self.size, self.link, self.info, self.align,
                           self.entsize)


class Symbol:
    """An entry of the symbol table."""
    FORMAT = '<IBBHQQ'
    SIZE = 24

    def __init__(self, data, strings):
        (self.name_at, self.bits, self.other, self.shndx, self.value,
         self.size) = struct.unpack(self.FORMAT, data)
        self.name = cstr(strings, self.name_at)

    def pack(self):
        """As it is in the file."""
        return struct.pack(self.FORMAT, self.name_at, self.bits, self.other, self.shndx,
                           self.value, self.size)


def cstr(data, at):
    """The string at an offset."""
    return data[at:data.index(b'\0', at)].decode('latin-1')


class Elf:
    """A file, in memory."""

    def __init__(self, path):
        with open(path, 'rb') as f:
            self.data = f.read()
        if self.data[:6] != b'\x7fELF\x02\x01':
            raise ValueError(f'{path}: not a 64-bit ELF file')
        shoff, = struct.unpack_from('<Q', self.data, 40)
        size, num, self.shstrndx = struct.unpack_from('<HHH', self.data, 58)
        fields = [struct.unpack_from(HEADER, self.data, shoff + i * size) for i in range(num)]
        strings = Section(self.data, fields[self.shstrndx]).data
        self.sections = [Section(self.data, f, strings) for f in fields]
        self.symtab = next((s for s in self.sections if s.type == SHT_SYMTAB), None)
        self.symbols = []
        if self.symtab:
            names = self.sections[self.symtab.link].data
            for at in range(0, self.symtab.size, Symbol.SIZE):
                self.symbols.append(Symbol(self.symtab.data[at:at + Symbol.SIZE], names))

    def section(self, name):
        """The section of that name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def functions(self):
        """Symbols of the functions that are defined here."""
        return [s for s in self.symbols if s.bits & 15 == 2 and s.shndx != SHN_UNDEF]

    def relocations(self):
        """(section, offset, type, symbol, addend) of what is loaded."""
        for s in self.sections:
            if s.type == SHT_RELA and self.sections[s.info].flags & SHF_ALLOC:
                for at in range(0, s.size, 24):
                    off, info, addend = struct.unpack_from('<QQq', s.data, at)
                    yield (self.sections[s.info], off, info & 0xffffffff,
                           self.symbols[info >> 32], addend)

    def read(self, addr, size):
        """Memory of an executable."""
        for s in self.sections:
            if s.flags & SHF_ALLOC and s.type != SHT_NOBITS and \
               s.addr <= addr and addr + size <= s.addr + s.size:
                return s.data[addr - s.addr:addr - s.addr + size]
        raise ValueError(f'nothing at {addr:#x}')
