#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Does a livepatch fit a kernel image? Looked at before anything is loaded.

usage: check.py MODULE.ko ROOTS FACTS SYMBOLS VMLINUX OBJECT...

MODULE.ko has debug information and symbols that are not resolved yet. ROOTS is roots.h,
FACTS what generate.py found, SYMBOLS what kallsyms.py says of VMLINUX, the OBJECTs are the kernel's own files that
have the roots, compiled here.
"""
import bisect
import collections
import os
import re
import subprocess
import sys
from btf import Btf
from elf import Elf, SHF_EXECINSTR, SHN_UNDEF
from frames import check_frames, read_roots

BRANCH = re.compile(rb'[\xe8\xe9]|\x0f[\x80-\x8f]', re.S)


class Image:
    """A kernel image with its symbols."""

    def __init__(self, path, symbols):
        self.elf = Elf(path)
        self.by_name = collections.defaultdict(list)
        self.text = []
        with open(symbols, encoding='latin-1') as f:
            for line in f:
                addr, kind, name = line.split()[:3]
                self.by_name[name].append(int(addr, 16))
                if kind in 'tTwW':
                    self.text.append((int(addr, 16), name))
        self.text.sort()
        self.starts = [a for a, _ in self.text]

    def function_at(self, addr):
        """Names of the function that has <addr> in it."""
        start = self.starts[bisect.bisect_right(self.starts, addr) - 1]
        i = bisect.bisect_left(self.starts, start)
        names = set()
        while i < len(self.text) and self.text[i][0] == start:
            names.add(self.text[i][1])
            i += 1
        return names

    def calls(self, targets):
        """How often each function goes straight to one of <targets>, by address."""
        out = collections.Counter()
        s = self.elf.section('.text')
        for m in BRANCH.finditer(s.data):
            to = s.addr + m.end() + 4 + int.from_bytes(s.data[m.end():m.end() + 4], 'little',
                                                       signed=True)
            if to in targets:
                for name in self.function_at(s.addr + m.start()):
                    out[name, targets[to]] += 1
        return out

    def between(self, start, end):
        """Address and contents of the table between two symbols; None if they are not there."""
        a, b = self.by_name[start], self.by_name[end]
        return (a[0], self.elf.read(a[0], b[0] - a[0])) if a and b else None

    def patchable(self):
        """Names of the functions that ftrace has a place in, where a livepatch redirects."""
        _, data = self.between('__start_mcount_loc', '__stop_mcount_loc') or (0, b'')
        return {name for i in range(0, len(data), 8)
                for name in self.function_at(int.from_bytes(data[i:i + 8], 'little'))}

    def sealed(self):
        """Addresses that nothing may call indirectly where the CPU has IBT."""
        table = self.between('__ibt_endbr_seal', '__ibt_endbr_seal_end')
        if not table:
            return None
        addr, data = table
        return {addr + i + int.from_bytes(data[i:i + 4], 'little', signed=True)
                for i in range(0, len(data), 4)}


def is_branch(data, at):
    """Is the field at <at> where a call or jump goes?"""
    return at > 0 and data[at - 1] in (0xe8, 0xe9) or \
        at > 1 and data[at - 2] == 0x0f and data[at - 1] & 0xf0 == 0x80


def check_roots(image, roots):
    """Each root is one function, in one piece, and can be redirected."""
    patchable = image.patchable()
    for r in sorted(roots):
        n = len(image.by_name[r])
        if n != 1:
            yield f'{r} is in the image {n} times, and has to be there once'
        elif len(image.function_at(image.by_name[r][0])) != 1:
            yield f'{r} has the same code as another function, which would be replaced, too'
        elif r not in patchable:
            yield f'{r} has no place for ftrace in the image: the livepatch would not load'
        for name in image.by_name:
            if re.fullmatch(re.escape(r) + r'\.(isra|constprop|part)\.\d+', name):
                yield f'{r} is in the image as {name}, too: make what calls it a root'


def inlined(path):
    """(function, function that it is inlined in) of an object, by its DWARF."""
    text = subprocess.run(['readelf', '-wi', path], capture_output=True, check=True,
                          text=True, errors='replace').stdout
    names, found, outer = {}, [], ''
    for m in re.finditer(r'^ *<([0-9a-f]+)><([0-9a-f]+)>: Abbrev Number: \d+ \((\w+)\)\n'
                         r'((?:^ {4}.*\n)*)', text, re.M):
        depth, at, tag, attributes = m.groups()
        if tag not in ('DW_TAG_subprogram', 'DW_TAG_inlined_subroutine'):
            continue
        name = re.search(r'DW_AT_name .*?: (\w+) *$', attributes, re.M)
        origin = re.search(r'DW_AT_abstract_origin: <0x([0-9a-f]+)>', attributes)
        if tag == 'DW_TAG_subprogram':
            names[at] = name[1] if name else '<0x' + origin[1] if origin else '?'
            if depth == '1':
                outer = at
        elif origin:
            found.append((origin[1], outer))

    def name_of(at):
        name = names.get(at, '?')
        return name_of(name[3:]) if name.startswith('<0x') else name
    return {(name_of(a), name_of(b)) for a, b in found}


def check_inlined(objects, roots, behind):
    """A root that is inlined in what is not replaced would still run there."""
    for path in objects:
        for inner, outer in sorted(inlined(path)):
            if inner in roots and outer not in behind:
                yield f'{inner} is inlined in {outer}, which has to be a root, too'


def branches(elf, roots):
    """(section, offset, root) of calls and jumps to roots in an object."""
    index = {id(s): i for i, s in enumerate(elf.sections)}
    here = {(s.shndx, s.value): s.name for s in elf.symbols if s.name in roots}
    related = set()
    for sec, off, _, sym, addend in elf.relocations():
        related.add((index[id(sec)], off))
        if sec.flags & SHF_EXECINSTR and is_branch(sec.data, off):
            # what is in the same file may be an offset in a section
            root = sym.name or here.get((sym.shndx, sym.value + addend + 4))
            if root in roots:
                yield index[id(sec)], off, root
    # and what is in the same section needs no relocation
    for i, sec in enumerate(elf.sections):
        if sec.flags & SHF_EXECINSTR:
            for m in BRANCH.finditer(sec.data):
                to = m.end() + 4 + int.from_bytes(sec.data[m.end():m.end() + 4], 'little',
                                                  signed=True)
                if (i, to) in here and (i, m.end()) not in related:
                    yield i, m.end(), here[i, to]


def check_calls(image, objects, roots):
    """The image calls the roots where a build of its source does."""
    where = {image.by_name[r][0]: r for r in roots if image.by_name[r]}
    have = image.calls(where)
    for path in objects:
        elf = Elf(path)
        # functions by section, to find who calls
        funcs = collections.defaultdict(list)
        for s in elf.functions():
            funcs[s.shndx].append((s.value, s.name))
        want = collections.Counter()
        for index, off, root in branches(elf, roots):
            of = max((f for f in funcs[index] if f[0] <= off), default=(0, '?'))
            want[of[1], root] += 1
        names = {n for fs in funcs.values() for _, n in fs if len(image.by_name[n]) == 1}
        for caller in sorted(names):
            for r in roots:
                if want[caller, r] != have[caller, r]:
                    yield f'{caller} calls {r} {have[caller, r]} times in the image and ' \
                          f'{want[caller, r]} times in a build of its source: ' \
                          'is this the compiler it was built with?'


def check_ibt(module, image):
    """What the module takes the address of may be called by address."""
    sealed = image.sealed()
    if sealed is None:
        return
    for sec, off, _, sym, _ in module.relocations():
        if sym.shndx == SHN_UNDEF and not (sec.flags & SHF_EXECINSTR and
                                           is_branch(sec.data, off)):
            for addr in image.by_name[sym.name]:
                if addr in sealed:
                    yield f'{sym.name} is called by its address ({sec.name}), ' \
                          'and CPUs with IBT do not allow that'


def check_layouts(module, path, own):
    """Types that both have are the same, but for those of the series' <own>."""
    kernel = Btf(path).types()
    for name, layouts in sorted(Btf(module).types().items()):
        for layout in layouts if name.split()[1] not in own else []:
            if name in kernel and layout not in kernel[name]:
                yield f'{name} is {layout[0]} bytes in the livepatch and ' \
                      f'{kernel[name][0][0]} in the image, or its members are elsewhere'


def btf_of(module):
    """The module's types, in a file beside it, or None without pahole."""
    out = module + '.btf'
    try:
        subprocess.run(['pahole', '--btf_encode_detached', out, module], check=True,
                       stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return None
    return out


def read_facts(path):
    """Sets of names, by what they are."""
    out = collections.defaultdict(set)
    with open(path, encoding='ascii') as f:
        for line in f:
            what, name = line.split()
            out[what].add(name)
    return out


def main():
    if len(sys.argv) < 7:
        sys.exit('usage: check.py MODULE.ko ROOTS FACTS SYMBOLS VMLINUX OBJECT...')
    path, roots, facts, symbols, vmlinux, *objects = sys.argv[1:]
    roots = read_roots(roots)
    facts = read_facts(facts)
    image = Image(vmlinux, symbols)
    bad = [*check_roots(image, roots), *check_inlined(objects, roots, facts['behind'])]
    if not bad:
        bad += check_calls(image, objects, roots)
    bad += check_frames(path, roots)
    bad += check_ibt(Elf(path), image)
    types = btf_of(path)
    if not types:
        bad.append('layouts of types cannot be checked: there is no pahole; install it')
    elif not image.elf.section('.BTF'):
        bad.append('layouts of types cannot be checked: the image has no BTF')
    else:
        bad += check_layouts(types, vmlinux, facts['type'])
    for line in bad:
        print(f'livepatch: {line}', file=sys.stderr)
    if not bad:
        print(f'{len(roots)} functions, each once in the image and inlined nowhere')
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
