#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Have a module refer to the kernel's own functions and variables.

usage: klp.py IN.ko SYMVERS SYMBOLS OUT.ko

What IN.ko leaves undefined is either exported (SYMVERS, the kernel's Module.symvers)
or one name in SYMBOLS ("address type name" lines, as of /proc/kallsyms): that becomes
a livepatch symbol, and its relocations livepatch relocations, as described in the
kernel's Documentation/livepatch/module-elf-format.rst. All else is an error.

What it defines has a name of its own in OUT.ko: a kprobe by name is refused if the
kernel and its modules have the name more than once.
"""
import collections
import re
import struct
import sys
from elf import (Elf, Section, HEADER, SHF_ALLOC, SHF_INFO_LINK, SHF_RELA_LIVEPATCH,
                 SHN_LIVEPATCH, SHN_UNDEF, SHT_RELA)


# of the functions in the module, as mm/watch knows
PREFIX = 'ptm_'
# where a module begins and ends, and what mm/watch asks for
KEPT = {'init_module', 'cleanup_module', 'partial_thp_migration_enabled'}
# in front of the name of a function, these say what else it is; the kernel looks at them
KINDS = re.compile('__(pfx|cfi)_')


def read_exported(path):
    """Names that modules may use, of the kernel itself."""
    names = set()
    with open(path, encoding='ascii') as f:
        for line in f:
            _, name, where = line.split('\t')[:3]
            if where == 'vmlinux':
                names.add(name)
    return names


def read_symbols(path):
    """How often each name is in the kernel."""
    with open(path, encoding='latin-1') as f:
        return collections.Counter(line.split()[2] for line in f)


def check(elf, exported, known):
    """Symbols that become the livepatch's; dies of what cannot be had."""
    out, bad = [], []
    for i, s in enumerate(elf.symbols):
        if i == 0 or s.shndx != SHN_UNDEF or s.name in exported:
            continue
        if known[s.name] == 1:
            out.append(i)
        elif not known[s.name]:
            bad.append(f'{s.name} is not in the kernel')
        else:
            bad.append(f'{s.name} is in the kernel {known[s.name]} times')
    if bad:
        sys.exit('livepatch: ' + '; '.join(bad))
    return out


def own_name(name):
    """What a function of the module is called."""
    if name in KEPT:
        return name
    kind = KINDS.match(name)
    if kind:
        return kind[0] + own_name(name[kind.end():])
    return PREFIX + name


def convert(elf, klp):
    """The file with relocations of the symbols <klp> set apart, and own names."""
    data = bytearray(elf.data)
    names = bytearray(elf.sections[elf.shstrndx].data)
    strtab = elf.sections[elf.symtab.link]
    strings = bytearray(strtab.data)
    symtab_index = elf.sections.index(elf.symtab)
    wanted = set(klp)

    def put(section, content, align=8):
        data.extend(b'\0' * (-len(data) % align))
        section.offset, section.size, section.data = len(data), len(content), bytes(content)
        data.extend(content)

    for i in klp:
        s = elf.symbols[i]
        s.name_at = len(strings)
        s.shndx = SHN_LIVEPATCH
        # the first of that name: it is the only one, see check(), and kernels before 6.2
        # would look through all symbols for a second one, for each relocation
        strings += f'.klp.sym.vmlinux.{s.name},1'.encode() + b'\0'
    for s in elf.functions():
        if s.shndx != SHN_LIVEPATCH and own_name(s.name) != s.name:
            s.name_at = len(strings)
            strings += own_name(s.name).encode() + b'\0'
    extra = []
    for s in elf.sections:
        target = elf.sections[s.info] if s.type == SHT_RELA else None
        if not target or not target.flags & SHF_ALLOC:
            continue
        parts = bytearray(), bytearray()
        for at in range(0, s.size, 24):
            sym = struct.unpack_from('<Q', s.data, at + 8)[0] >> 32
            parts[sym in wanted].extend(s.data[at:at + 24])
        if parts[1]:
            new = Section(b'', struct.unpack(HEADER, s.header()))
            new.name_at = len(names)
            new.flags = SHF_ALLOC | SHF_INFO_LINK | SHF_RELA_LIVEPATCH
            new.link = symtab_index
            names += f'.klp.rela.vmlinux.{target.name}'.encode() + b'\0'
            put(s, parts[0])
            put(new, parts[1])
            extra.append(new)
    put(elf.symtab, b''.join(s.pack() for s in elf.symbols))
    put(strtab, strings, 1)
    put(elf.sections[elf.shstrndx], names, 1)
    sections = elf.sections + extra
    data.extend(b'\0' * (-len(data) % 8))
    struct.pack_into('<Q', data, 40, len(data))
    struct.pack_into('<H', data, 60, len(sections))
    data.extend(b''.join(s.header() for s in sections))
    return bytes(data)


def main():
    if len(sys.argv) != 5:
        sys.exit('usage: klp.py IN.ko SYMVERS SYMBOLS OUT.ko')
    src, symvers, symbols, dst = sys.argv[1:]
    elf = Elf(src)
    known = read_symbols(symbols)
    klp = check(elf, read_exported(symvers), known)
    with open(dst, 'wb') as f:
        f.write(convert(elf, klp))
    # as they are in the file
    twice = sorted({s.name for s in Elf(dst).functions() if known[s.name]})
    if twice:
        sys.exit(f'livepatch: has functions with names of the kernel: {", ".join(twice)}')
    print(f'{len(klp)} livepatch symbols')


if __name__ == '__main__':
    main()
