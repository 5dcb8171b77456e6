#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Make the C files of a livepatch from what a series changes.

usage: generate.py ROOTS STOCK PATCHED OUT FILE...

STOCK and PATCHED hold FILE.i, preprocessed as for the kernel itself, and STOCK/kernel, if
there is one, is the source of which these are files of mm/. OUT gets FILE.c,
preprocessed still, with the functions that ROOTS names, what of the changes they reach,
and copies of the static functions they call. All other functions and variables become
declarations, for the kernel has them. OUT also gets roots.h, copies.h and
report.

A path by which the kernel's own code would still run what the series changes is an
error, and so is everything that is not understood.
"""
import os
import re
import subprocess
import sys
import clang.cindex as ci
from cunit import K, LINE, MARKER, Refused, Unit, norm

# what a macro keeps: a note to the linker, that it has printed once, how often it prints
HARMLESS = re.compile(r'\.discard\.|\.data\.+once|__already_done|__warned|\bstruct ratelimit_state\b')


def read_roots(path):
    """Names to replace; "- name: reason" is left out, and "false name: reason" returns
    false in the livepatch."""
    roots, out, false = [], {}, {}
    with open(path, encoding='ascii') as f:
        text = re.sub(r'#.*', '', f.read())
    for line in re.sub(r'\n[ \t]+(?=\S)', ' ', text).splitlines():
        line = line.strip()
        m = re.fullmatch(r'(-|false) +(\w+): *(\S.*)', line)
        if m:
            (out if m[1] == '-' else false)[m[2]] = m[3]
        elif re.fullmatch(r'\w+', line):
            roots.append(line)
        elif line:
            raise Refused(f'{path}: what is "{line}"?')
    return roots, out, false


def words(ch):
    """Identifiers, quickly: most declarations have none that is looked for."""
    return set(re.findall(r'\w+', ch.text))


def asserts(ch):
    """An assertion at compile time, nothing else."""
    return bool(ch.cursors) and all(c.kind == K.STATIC_ASSERT for c in ch.cursors)


def constant(ch):
    """Data of which a copy is as good."""
    if ch.kind != 'vars' or len(ch.names) != 1 or not ch.static:
        return False
    t = ch.cursor.type
    while t.kind in (ci.TypeKind.CONSTANTARRAY, ci.TypeKind.INCOMPLETEARRAY):
        t = t.element_type
    return t.is_const_qualified()


def same(a, b):
    """Do two versions say the same?"""
    return a.text == b.text or a.norm == b.norm


class Series:
    """Both versions of each file, and what is different."""

    def __init__(self, stock, patched, files):
        self.files = files
        self.others = f'{stock}/kernel/'
        self.stock = {f: Unit(f'{stock}/{f}.i') for f in files}
        self.new = {f: Unit(f'{patched}/{f}.i') for f in files}
        self.glob = {}          # functions and variables that other files see
        for f in files:
            for n, ch in self.new[f].defs.items():
                if not ch.static and not ch.inline:
                    if n in self.glob:
                        raise Refused(f'{ch.where}: {n} is also in {self.glob[n]}.c')
                    self.glob[n] = f
        self.own_types = set()  # changed, and used by nothing but what is changed
        self.changed = {f: self.find_changed(f) for f in files}
        for f in files:
            self.check_others(f)

    def elsewhere(self, name):
        """Files of the kernel that refer to <name> and that the series does not change."""
        if not os.path.isdir(self.others):
            return []
        found = subprocess.run(['grep', '-rlw', '--include=*.c', name, '.'], cwd=self.others,
                               stdout=subprocess.PIPE, text=True, check=False).stdout.split()
        found = [p.removeprefix('./') for p in found]
        return sorted(p for p in found if not (p.startswith('mm/') and p[3:-2] in self.files))

    def defined_elsewhere(self, name):
        """Files of mm/ that define the function <name>, and that the series does not change."""
        body = re.compile(rf'^\w[^;{{}}()]*\b{name}\([^;{{}}]*\)\s*{{', re.M)
        out = []
        for path in self.elsewhere(name):
            if not path.startswith('mm/'):
                continue
            with open(self.others + path, encoding='utf-8', errors='replace') as f:
                if body.search(f.read()):
                    out.append(path)
        return out

    def find_changed(self, f):
        """Names in <f> that the series changes, adds or removes."""
        old, new = self.stock[f].defs, self.new[f].defs
        out = {n for n in old.keys() | new.keys()
               if n not in old or n not in new or not same(old[n], new[n])}
        # who uses a changed type or inline function is changed, too
        types = self.changed_types(f)
        out |= {ch.name for n, ch in new.items() if n not in out and ch.kind == 'func' and
                types & words(ch)}
        # and so is a constant that has a changed function in it, and who uses that
        todo = [n for n in out if n in new]
        while todo:
            n = todo.pop()
            for ch in self.new[f].users(n):
                if ch.name not in out and \
                   (constant(ch) if new[n].kind == 'func' and not new[n].inline else
                    ch.kind == 'func' or constant(ch)):
                    out.add(ch.name)
                    todo.append(ch.name)
        return out

    def changed_types(self, f):
        """Types of the file's own may change if all that uses them does."""
        kinds = (K.STRUCT_DECL, K.UNION_DECL, K.ENUM_DECL, K.TYPEDEF_DECL)

        def by_name(unit):
            return {(c.kind, c.spelling): (ch, c) for ch in unit.chunks for c in ch.cursors
                    if c.kind in kinds and c.is_definition() and c.spelling}
        a, b = by_name(self.stock[f]), by_name(self.new[f])
        out = set()
        for key in a.keys() & b.keys():
            (ca, da), (cb, db) = a[key], b[key]
            if same(ca, cb) or layout(da) == layout(db) or \
               da.kind == K.ENUM_DECL and set(layout(da)) <= set(layout(db)):
                continue
            users = [ch for ch in self.stock[f].defs.values()
                     if ch.kind == 'vars' and da.spelling in words(ch)]
            if ca.file != self.stock[f].main or cb.file != self.new[f].main or users:
                raise Refused(f'{cb.where}: the series changes {da.spelling}, '
                              'which the running kernel has in use')
            out.add(da.spelling)
        self.own_types |= out
        return out

    def check_others(self, f):
        """Variables and assembly stay as they are."""
        old, new = self.stock[f], self.new[f]
        for n in self.changed[f]:
            ca, cb = old.defs.get(n), new.defs.get(n)
            if ca and cb and ca.kind == cb.kind == 'vars' and not constant(cb):
                raise Refused(f'{cb.where}: the series changes the variable {n}, '
                              'which the running kernel has in use')
            if ca and not cb and ca.kind == 'vars':
                continue        # the kernel keeps it
        known = {norm(ch.text) for ch in old.chunks if ch.kind == 'asm'}
        for ch in new.chunks:
            if ch.kind == 'asm' and norm(ch.text) not in known and ch.file == new.main and \
               not re.search(r'export_symbol|__ksymtab', ch.text):
                raise Refused(f'{ch.where}: the series adds assembly')


def layout(decl):
    """What other code knows of a type."""
    if decl.kind == K.ENUM_DECL:
        return [(c.spelling, c.enum_value) for c in decl.get_children()]
    if decl.kind == K.TYPEDEF_DECL:
        return decl.underlying_typedef_type.get_canonical().spelling
    t = decl.type
    return [t.get_size()] + [(f.spelling, f.get_field_offsetof(), f.type.get_canonical().spelling)
                             for f in t.get_fields()]


class Livepatch:
    """What of the series a set of roots needs."""

    def __init__(self, series, roots, left_out, false=()):
        self.s, self.left_out, self.false = series, left_out, false
        self.notes = []
        for n in false:
            where = [f for f in series.files if n in series.new[f].defs and
                     n not in series.stock[f].defs and
                     re.match(r'static (inline )?bool\b', series.new[f].defs[n].head)]
            if len(where) != 1:
                raise Refused(f'false {n}: not a static bool function that the series adds')
        self.roots = set()
        for r in roots:
            self.add_root(r)
        self.kept = {f: set() for f in series.files}
        self.extern = {f: set() for f in series.files}
        for f, r in sorted(self.roots):
            if not any(n in series.changed[g] for g, n in self.reach(f, r)):
                self.notes.append(f'not needed here: {r}')
                self.roots.discard((f, r))
        for f, r in sorted(self.roots):
            self.keep(f, r)
        for f in series.files:
            for n in self.new_by_section(f):
                self.keep(f, n)
            if self.kept[f]:
                for n in self.used_by_types(f):
                    self.keep(f, n)
        self.check_covered()

    def add_root(self, name):
        """A root has to be in both trees, and be called in the same way.

        One in a file that the series does not change on this kernel, as the kernel has that
        patch already, is not needed.
        """
        where = [f for f in self.s.files
                 if name in self.s.new[f].defs and not self.s.new[f].defs[name].inline]
        known = any(name in self.s.stock[f].defs for f in self.s.files)
        if not where and not known and self.s.defined_elsewhere(name):
            self.notes.append(f'not needed here: {name}')
            return
        if len(where) != 1:
            raise Refused(f'root {name}: ' + ('not defined in ' if not where else 'in each of ') +
                          ', '.join(f + '.c' for f in where or self.s.files))
        f = where[0]
        old, new = self.s.stock[f].defs.get(name), self.s.new[f].defs[name]
        if new.kind != 'func' or not old or old.kind != 'func':
            raise Refused(f'root {name}: not a function of the kernel')
        if norm(old.head) != norm(new.head):
            raise Refused(f'root {name}: the series changes how it is called')
        if '.init.text' in new.head:
            raise Refused(f'root {name}: only runs at boot')
        self.roots.add((f, name))

    def new_by_section(self, f):
        """What is found by the section it is in: trace events, for one."""
        for n in self.s.changed[f]:
            ch = self.s.new[f].defs.get(n)
            if ch and n not in self.s.stock[f].defs and ch.kind == 'vars' and \
               re.search(r'\b(__)?section(__)?\b', ch.text.split('=')[0]) and \
               '.discard.' not in ch.text:
                if re.search(r'initcall|\.init\.setup|__param', ch.text):
                    raise Refused(f'{ch.where}: {n} is for boot, and no livepatch can have it')
                yield n

    def used_by_types(self, f):
        """What the size of an array is computed with, for one."""
        defs = self.s.new[f].defs
        for ch in self.s.new[f].chunks:
            if ch.kind == 'other' and not asserts(ch) and any(n in defs for n in words(ch)):
                yield from (n for n in sorted(ch.refs())
                            if n in defs and (constant(defs[n]) or
                                              defs[n].kind == 'func' and defs[n].static))

    def keep(self, f, name):
        """Take <name> of <f>, and what it refers to."""
        todo = [(f, name)]
        while todo:
            f, name = todo.pop()
            if name in self.kept[f]:
                continue
            self.kept[f].add(name)
            ch = self.s.new[f].defs[name]
            if name in self.false:
                self.notes.append(f'false {name}: {self.false[name]}')
                continue
            # each file has its own copy of what a header defines
            if ch.kind == 'func' and ch.file == self.s.new[f].main:
                self.check_statics(f, ch)
            for r in sorted(ch.refs()):
                todo += self.refer(f, r)

    def reach(self, f, name):
        """What <name> would bring with it."""
        seen, todo = set(), [(f, name)]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                for r in self.s.new[at[0]].defs[at[1]].refs():
                    todo += self.refer(at[0], r)
        for kept in (self.kept, self.extern):
            for names in kept.values():
                names.clear()
        return seen

    def refer(self, f, name):
        """Where <name> as used in <f> comes from; yields what has to be taken."""
        g = f if name in self.s.new[f].defs else self.s.glob.get(name)
        if not g:
            return
        ch = self.s.new[g].defs[name]
        changed = name in self.s.changed[g]
        if ch.kind == 'func' and (changed or ch.static or ch.inline):
            yield g, name
        elif constant(ch) or ch.kind == 'vars' and name not in self.s.stock[g].defs:
            yield g, name
        else:
            self.extern[f].add(name)

    def check_statics(self, f, ch):
        """A second copy of what a function remembers is not the same thing."""
        old = self.s.stock[f].defs.get(ch.name)
        before = {v.spelling for v in old.local_statics()} if old else set()
        for v in ch.local_statics():
            text = self.s.new[f].text[v.extent.start.offset:v.extent.end.offset]
            if v.spelling in before and not HARMLESS.search(text) and \
               not v.type.is_const_qualified():
                raise Refused(f'{ch.where}: {ch.name} keeps {v.spelling} between calls, '
                              'and a copy of it would keep another one')

    def users(self, f, name):
        """(file, chunk) of what refers to <name> of <f>, in the stock kernel."""
        ch = self.s.stock[f].defs[name]
        for g in [f] if ch.static else self.s.files:
            for u in self.s.stock[g].users(name):
                yield g, u

    def check_covered(self):
        """Nothing of the kernel's own may get past the roots to what is changed."""
        bad, inlines = [], set()

        def covered(f, name, path):
            if (f, name) in self.roots:
                return True
            ch = self.s.stock[f].defs[name]
            if name in self.left_out:
                self.notes.append(f'left out: {name}: {self.left_out[name]}')
                return True
            if ch.inline and ch.file != self.s.stock[f].main:
                users = [(g, u) for g, u in self.users(f, name) if g == f]
                return all(covered(g, u.name, path + [name]) for g, u in users)
            users = list(self.users(f, name))
            if not constant(ch) and ch.kind != 'func' or not users or not ch.static and \
               norm(ch.head) == norm(self.s.new[f].defs[name].head if
                                     name in self.s.new[f].defs else ch.head):
                bad.append(' <- '.join(path + [name]))
                return False
            return all(covered(g, u.name, path + [name]) for g, u in users
                       if u.name not in path)

        for f in self.s.files:
            for n in sorted(self.s.changed[f]):
                if n not in self.s.stock[f].defs or self.s.stock[f].defs[n].kind != 'func':
                    continue
                if self.s.stock[f].defs[n].inline and \
                   self.s.stock[f].defs[n].file != self.s.stock[f].main:
                    inlines.add(n)  # its users here are changed
                    continue
                covered(f, n, [])
                if n in self.s.new[f].defs and n not in self.kept[f] and \
                   n not in self.left_out:
                    bad.append(f'{n}, which no root reaches')
        for n in sorted(inlines):
            elsewhere = self.s.elsewhere(n)
            if elsewhere and n in self.left_out:
                self.notes.append(f'left out: {n}: {self.left_out[n]}')
            elif elsewhere:
                bad.append(f'{n} <- {", ".join(elsewhere)}')
        if bad:
            raise Refused('the kernel would still run what the series changes; the roots lack:\n  ' +
                          '\n  '.join(sorted(set(bad))))

    def behind(self):
        """Functions of the stock kernel that nothing but the roots gets to."""
        out = {n for _, n in self.roots}
        todo = [(f, n) for f in self.s.files for n in self.kept[f] if n in self.s.stock[f].defs]
        more = True
        while more:
            more = False
            for f, n in todo:
                ch = self.s.stock[f].defs[n]
                if n in out or not ch.static or ch.kind != 'func' or \
                   ch.file != self.s.stock[f].main:
                    continue
                users = list(self.users(f, n))
                if users and all(u.name in out for _, u in users):
                    out.add(n)
                    more = True
        return out

    def write(self, out):
        """The files of the module."""
        for f in self.s.files:
            if self.kept[f]:
                with open(f'{out}/{f}.c', 'w', encoding='ascii') as o:
                    o.write(self.source(f))
        with open(f'{out}/roots.h', 'w', encoding='ascii') as o:
            o.write(''.join(f'ROOT({n})\n' for _, n in sorted(self.roots)))
        with open(f'{out}/copies.h', 'w', encoding='ascii') as o:
            o.write(''.join(f'COPY({n})\n' for n in sorted(self.copies())))
        with open(f'{out}/facts', 'w', encoding='ascii') as o:
            o.write(''.join(f'type {t}\n' for t in sorted(self.s.own_types)))
            o.write(''.join(f'behind {n}\n' for n in sorted(self.behind())))
        with open(f'{out}/report', 'w', encoding='ascii') as o:
            o.write(self.report())

    def copies(self):
        """Functions of the stock kernel that the module has besides the roots."""
        return {n for f in self.s.files for n in self.kept[f]
                if (f, n) not in self.roots and n in self.s.stock[f].defs
                and self.s.stock[f].defs[n].kind == 'func'
                and self.s.stock[f].defs[n].file == self.s.stock[f].main}

    def source(self, f):
        """<f> with what is kept."""
        unit = self.s.new[f]
        known = {norm(ch.text) for ch in self.s.stock[f].chunks if ch.kind == 'asm'}
        parts = []
        for ch in unit.chunks:
            text = self.part(f, ch, known)
            if text:
                # which file includes which is of no interest any more
                text = MARKER.sub(r'# \1 "\2"', text)
                # in a string it is for a message
                text = text.replace(f'"{LINE}"', f'"{ch.line}"')
                parts.append(f'# {ch.line} "{ch.file}"\n{text.strip()}\n')
        text = ''.join(parts)
        # an operand of an asm may be a builtin; a piece of a name or a string may not
        for m in re.finditer(r'"(?:\\.|[^"\\\n])*"|\w*' + LINE + r'\w*', text):
            if LINE in m.group() and m.group() != LINE:
                raise Refused(f'{unit.main}: {m.group()}: the line is part of it')
        return re.sub(r'\b' + LINE + r'\b', '__builtin_LINE()', text)

    def part(self, f, ch, known):
        """What becomes of one declaration."""
        main = self.s.new[f].main
        if ch.kind == 'asm':
            if '.macro' in ch.text:
                return ch.text
            return '' if norm(ch.text) in known or ch.file == main else ch.text
        if ch.kind == 'func':
            if (f, ch.name) in self.roots:
                return self.public(ch)
            if ch.name in self.kept[f] and ch.name in self.false:
                return ch.head + ' { return 0; }'
            if ch.name in self.kept[f]:
                return ch.text
            if ch.name in self.extern[f] and not ch.static:
                return 'extern ' + re.sub(r'^extern\b', '', ch.head) + ';'
            return ''
        if ch.kind == 'vars':
            if ch.name in self.kept[f]:
                return ch.text
            return self.declaration(ch) if self.extern[f] & set(ch.names) else ''
        if ch.kind == 'other' and any(c.kind == K.FUNCTION_DECL and (f, c.spelling) in self.roots
                                      for c in ch.cursors):
            return self.public(ch)
        if asserts(ch):
            return ''       # may be about what is not here
        return ch.text

    @staticmethod
    def public(ch):
        """A root is seen by the module's frame."""
        text = ch.text
        if ch.cursors[-1].storage_class == ci.StorageClass.STATIC:
            text = re.sub(r'\bstatic\b', '', text, count=1)
            if ch.kind == 'func':
                text = re.sub(r'\bstatic\b', '', ch.head, count=1) + ';\n' + text
        return text

    @staticmethod
    def declaration(ch):
        """A variable that the kernel has."""
        if len(ch.names) != 1:
            raise Refused(f'{ch.where}: several variables at once: {", ".join(ch.names)}')
        text = MARKER.sub('', ch.text).strip()
        depth = 0
        for i, c in enumerate(text):
            depth += (c in '([{') - (c in ')]}')
            if c == '=' and depth == 0:
                text = text[:i].rstrip() + ';'
                break
        text = re.sub(r'\b(static|extern)\b', '', text, count=1).strip()
        text = re.sub(r'__attribute__\(\((__)?used(__)?\)\)', '', text)
        return 'extern ' + text

    def report(self):
        """What is in the livepatch, for people."""
        lines = [f'replaces {n} ({f}.c)' for f, n in sorted(self.roots)]
        for f in self.s.files:
            for n in sorted(self.kept[f]):
                ch = self.s.new[f].defs[n]
                if (f, n) in self.roots or ch.inline and ch.file != self.s.new[f].main:
                    continue
                old = self.s.stock[f].defs.get(n)
                what = 'new' if not old else 'changed' if n in self.s.changed[f] else 'copy of'
                lines.append(f'{what} {n} ({f}.c)')
        return '\n'.join(lines + sorted(set(self.notes))) + '\n'


def main():
    if len(sys.argv) < 6:
        sys.exit('usage: generate.py ROOTS STOCK PATCHED OUT FILE...')
    roots, stock, patched, out = sys.argv[1:5]
    try:
        names, left_out, false = read_roots(roots)
        patch = Livepatch(Series(stock, patched, sys.argv[5:]), names, left_out, false)
        os.makedirs(out, exist_ok=True)
        patch.write(out)
    except (Refused, OSError) as e:
        sys.exit(f'livepatch: {e}')


if __name__ == '__main__':
    main()
