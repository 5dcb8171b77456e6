#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Print the symbols of a kernel image, as /proc/kallsyms would with KASLR off.

usage: kallsyms.py VMLINUX

Distributions strip the symbol table, but the kernel has its own. The tables are found
by what is in them: 256 tokens, and an index of where each of them begins. 6.4 has put
the addresses behind them; before, they were in front.
"""
import re
import struct
import sys
from elf import Elf, cstr


def find_tokens(data):
    """Offsets of the tokens and of the index behind them."""
    for m in re.finditer(b''.join(bytes([c, 0]) for c in b'0123456789'), data):
        # tokens of letters are longer; somewhere in front of the digits is the first
        for start in range(m.start() - 48 * 16, m.start()):
            if start % 8:
                continue
            at, index = start, []
            for _ in range(256):
                index.append(at - start)
                at = data.index(b'\0', at) + 1
                if at - start > 256 * 32:
                    break
            at = (at + 7) & ~7
            if len(index) == 256 and data[at:at + 512] == struct.pack('<256H', *index):
                return start, at
    raise ValueError('no table of symbols')


def find_names(data, tokens):
    """Offset of the number of symbols, and of each name."""
    # the markers, one for each 256 symbols, end where the tokens begin
    for at in range(tokens - 8, max(0, tokens - (1 << 24)), -8):
        num, = struct.unpack_from('<I', data, at)
        if not 10000 < num < 1000000 or data[at + 4:at + 8] != bytes(4):
            continue
        p, names, marks = at + 8, [], []
        for i in range(num):
            if i % 256 == 0:
                marks.append(p - at - 8)
            size = data[p]
            p += 1
            if size & 0x80:
                size = size & 0x7f | data[p] << 7
                p += 1
            if not size or p + size > tokens:
                break
            names.append((p, size))
            p += size
        p = (p + 7) & ~7
        if len(names) == num and data[p:p + 4 * len(marks)] == \
           struct.pack(f'<{len(marks)}I', *marks):
            return at, names
    raise ValueError('no names of symbols')


def addresses(data, first, index, num):
    """Address of each symbol: relative to a base, but for per-CPU symbols."""
    size = (4 * num + 7) & ~7
    behind = index + 512
    for at in (behind, first - 8 - size):
        base, = struct.unpack_from('<Q', data, at + size)
        if base >> 32 == 0xffffffff:
            for off in struct.unpack_from(f'<{num}i', data, at):
                yield off if off >= 0 else base - 1 - off
            return
    raise ValueError('no addresses of symbols')


def symbols(elf):
    """(address, type, name), in the order of the kernel."""
    for s in elf.sections:
        if s.name == '.rodata':
            data = s.data
            start, index = find_tokens(data)
            tokens = [cstr(data, start + i) for i in struct.unpack_from('<256H', data, index)]
            first, names = find_names(data, start)
            for addr, (p, size) in zip(addresses(data, first, index, len(names)), names):
                name = ''.join(tokens[c] for c in data[p:p + size])
                yield addr, name[0], name[1:]
            return
    raise ValueError('no .rodata')


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: kallsyms.py VMLINUX')
    try:
        out = list(symbols(Elf(sys.argv[1])))
    except (ValueError, OSError) as e:
        sys.exit(f'{sys.argv[1]}: {e}')
    known = {name for _, _, name in out}
    if not {'_stext', '_etext', 'linux_banner', 'kallsyms_lookup_name'} <= known:
        sys.exit(f'{sys.argv[1]}: the table of symbols makes no sense')
    for addr, kind, name in out:
        print(f'{addr:016x} {kind} {name}')


if __name__ == '__main__':
    main()
