/**
 * Which files a pattern matches: against a matcher of whole paths, and on trees with links, sockets and paths that are too long, where every file is
 * read or reported.
 */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  symlinkSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, posix, resolve } from "node:path";
import fc from "fast-check";
import { type LeftOut, listFiles, type ListOptions } from "gradmix/data";
import picomatch from "picomatch";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

let folder = "";
const previous = process.cwd();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-files-"));
  process.chdir(folder);
});
afterEach(() => {
  process.chdir(previous);
  // Not by Node, which cannot delete paths that are too long either.
  execFileSync("rm", ["-rf", folder]);
});

const put = (path: string): void => {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, path);
};

describe("patterns", () => {
  const tree = ["a", "b.txt", "!b.txt", "c/.h/.y/a", "{c/d,d}/b.txt", "{d}/b.txt", "{c/d}/a", "c/a", "c/b.txt", "c/.h/a.txt", "c/d/a", "c/d/b.txt", "c/d/e/b.txt", "a.d/b.txt", ".h/c", ".x.txt", "d/d/d.txt", "[c]/b.txt", "{c,d}/b.txt"]; // prettier-ignore
  beforeEach(() => {
    for (const path of tree) put(path);
  });

  const names = fc.constantFrom("a", "c", "d", "*", "**", "*.txt", "?", "{a,b.txt}", "{c,d}", "[cd]", "c*", "{c/d,d}", "{d/{d,e},c}", ".h", ".*", "*.d", "+(c|d)", "\\{c,d\\}", "\\[c\\]", "!*.txt", "{c/b.txt,b.txt}", "{d}", "{c/d}", "\\{c/d,d\\}"); // prettier-ignore
  /** The alternatives of the braces among the names that have a "/" inside; each is a pattern of its own, with its own first star. */
  const alternatives = (pattern: string): string[] => {
    const [braces, inside] = ["{d/{d,e},c}", ["d/{d,e}", "c"]] as const;
    const at = pattern.indexOf(braces);
    if (at < 0) return [pattern];
    return inside.flatMap((one) =>
      alternatives(pattern.slice(0, at) + one + pattern.slice(at + braces.length)),
    );
  };
  /** Whether a pattern means a path: names before the first star do not matter for hidden files. */
  const means = (pattern: string, path: string): boolean => {
    const names = pattern.split("/");
    const starred = names.slice(names.findIndex((name) => picomatch.scan(name).isGlob));
    const dot = starred.some((name) => name.startsWith("."));
    // At the end, "**" means everything below a folder; for the matcher it may also match the empty path.
    return picomatch.makeRe(pattern.replace(/(^|\/)\*\*$/, "$1**/*"), { dot, nonegate: true }).test(path);
  };
  test("match whole paths", async () => {
    const patterns = fc
      .array(names, { minLength: 1, maxLength: 4 })
      .map((parts) => parts.join("/"))
      // A pattern that is the name of a file means this file.
      .filter((pattern) => picomatch.scan(pattern).isGlob && !existsSync(pattern));
    await fc.assert(
      fc.asyncProperty(
        patterns,
        fc.constantFrom("", "./", ".//"),
        fc.boolean(),
        async (pattern, start, twice) => {
          const expected = tree
            .filter((path) => alternatives(pattern).some((one) => means(one, path)))
            .sort();
          // "./" at the start and doubled slashes have no effect.
          const given = start + (twice ? pattern.replaceAll("/", "//") : pattern);
          const found = await listFiles([given]).then(
            (files) => files.map((file) => posix.normalize(file)).sort(),
            (error: Error) => error.message,
          );
          expect(found).toEqual(expected.length > 0 ? expected : `files: nothing matches ${given}`);
        },
      ),
      { numRuns: 600 },
    );
  });

  test("below a hidden folder do not match hidden files", async () => {
    put(".h/.secret");
    for (const base of [".h", resolve(".h")]) {
      expect(await listFiles([`${base}/**`])).toEqual([`${base}/c`]);
      expect(await listFiles([`${base}/.*`])).toEqual([`${base}/.secret`]);
    }
  });

  test("may begin at the root, and a brace that is not closed matches itself", async () => {
    const [first, ...rest] = resolve("c").slice(1).split("/");
    const base = [`[${first[0]}]${first.slice(1)}`, ...rest].join("/");
    expect(await listFiles([`/${base}/b.txt`])).toEqual([resolve("c/b.txt")]);
    put("{d/e{");
    for (const pattern of ["{c/d,*/b.txt", "*{c/d,*/b.txt", "?c/d,d}/b.txt"])
      expect(await listFiles([pattern])).toEqual(["{c/d,d}/b.txt"]);
    for (const pattern of ["*{d/*{", "?d/e{", "{d/e*"]) expect(await listFiles([pattern])).toEqual(["{d/e{"]);
  });

  test("do not read folders where they cannot match", async () => {
    symlinkSync("nowhere", "c/d/lost");
    symlinkSync("nowhere", "lost.md");
    expect(await listFiles(["*/b.txt"])).toEqual([
      "[c]/b.txt",
      "a.d/b.txt",
      "c/b.txt",
      "{c,d}/b.txt",
      "{d}/b.txt",
    ]);
    expect(await listFiles(["c/*.txt"])).toEqual(["c/b.txt"]);
    expect(await listFiles(["!(c|d|?c?)/*.txt"])).toEqual(["a.d/b.txt", "{c,d}/b.txt", "{d}/b.txt"]);
    await expect(listFiles(["c/**"])).rejects.toThrow(
      "files: c/d/lost cannot be read: it is a link to nowhere, which does not exist; fix it, or skip it with --skip-bad-lines",
    );
    await expect(listFiles(["+(c/d|a)/b.txt"])).rejects.toThrow(/a "\/" inside of \(…\) cannot be matched/);
  });
});

/** An entry of a random tree: what it is, where, and what a link points to. */
type Entry = [kind: "file" | "link" | "hard" | "fifo" | "deep", path: string, to: string];

describe("no file is lost", () => {
  const paths = fc
    .array(fc.constantFrom("a", "b", "c.txt", "e"), { minLength: 1, maxLength: 3 })
    .map((parts) => parts.join("/"));
  const entries: fc.Arbitrary<Entry[]> = fc.array(
    fc.tuple(
      fc.constantFrom("file", "file", "link", "link", "hard", "fifo", "deep" as const),
      paths,
      fc.oneof(paths, fc.constantFrom("..", ".", "/nowhere", "e")),
    ),
    { minLength: 1, maxLength: 14 },
  );

  function make(root: string, list: readonly Entry[]): void {
    for (const [kind, path, to] of list)
      try {
        const at = join(root, path);
        mkdirSync(dirname(at), { recursive: true });
        if (kind === "file") writeFileSync(at, path, { flag: "wx" });
        else if (kind === "link") symlinkSync(to, at);
        else if (kind === "hard") linkSync(join(root, to), at);
        else if (kind === "fifo") execFileSync("mkfifo", [at], { stdio: "ignore" });
        else tooDeep(at);
      } catch {
        // The place is taken, or there is nothing to link to: the tree is what could be made.
      }
  }

  /** A file below folders whose whole path no system call takes: made a step at a time. */
  function tooDeep(at: string): void {
    const here = process.cwd();
    try {
      mkdirSync(at);
      process.chdir(at);
      const name = "x".repeat(250);
      for (let n = 0; n < 17; n++) {
        mkdirSync(name);
        process.chdir(name);
      }
      writeFileSync("lost", "");
    } finally {
      process.chdir(here);
    }
  }

  test("every path below a folder is read under one of its names, or reported", async () => {
    let round = 0;
    await fc.assert(
      fc.asyncProperty(entries, async (list) => {
        const root = `t${round++}`;
        mkdirSync(root);
        make(root, list);
        const told = new Map<string, LeftOut>();
        const files = await listFiles([root], {
          skipUnreadable: true,
          onLeftOut: (path, why) => told.set(path, why),
        }).catch(() => []);
        // Walked here without following links, and with the shell's own notion of what a path is.
        const all = execFileSync("find", [root, "-mindepth", "1", "-printf", "%y %Y %p\\n"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }); // prettier-ignore
        for (const line of all.trim().split("\n")) {
          const [, type = "", target = "", path = ""] = /^(.) (.) (.*)$/.exec(line) ?? [];
          if (path.length > 4000) continue;
          if (type === "f" || (type === "l" && target === "f")) {
            // By content: each file holds its own first path.
            expect([...files, ...told.keys()].some((file) => sameFile(file, path))).toBe(true);
          } else if (type === "p" || (type === "l" && target !== "d")) {
            // A link to a fifo, to nothing or in a circle.
            expect([...told].some(([other, why]) => why === "unreadable" && sameEntry(other, path))).toBe(
              true,
            );
          }
        }
        const deep = list.some(([kind, path]) => kind === "deep" && readable(join(root, path)));
        if (deep) expect([...told.keys()].some((path) => path.length > 4000)).toBe(true);
        // Without `skipUnreadable`, there is an error exactly if something was reported.
        const strict = await listFiles([root]).catch((error: Error) => error.message);
        if (told.size > 0) expect(strict).toMatch(/cannot be read/);
        else if (files.length > 0) expect(strict).toEqual(files);
      }),
      { numRuns: 50 },
    );
  });

  const readable = (path: string): boolean => {
    try {
      return readdirSync(path).includes("x".repeat(250));
    } catch {
      return false;
    }
  };
  const same = (a: Stats | undefined, b: Stats | undefined): boolean =>
    a !== undefined && a.ino === b?.ino && a.dev === b.dev;
  const sameFile = (a: string, b: string): boolean =>
    a === b || (a.length < 4000 && same(statSync(a, { throwIfNoEntry: false }), statSync(b)));
  const sameEntry = (a: string, b: string): boolean =>
    a === b || (a.length < 4000 && same(lstatSync(a), lstatSync(b)));

  test("a broken link whose name does not match may have been a folder, so it is reported, without an error", async () => {
    put("d/a.txt");
    symlinkSync("nowhere", "d/lost");
    const told: string[] = [];
    const files = await listFiles(["d/**/*.txt"], { onLeftOut: (path, why) => told.push(`${why} ${path}`) });
    expect([files, told]).toEqual([["d/a.txt"], ["link d/lost"]]);
  });

  test("if nothing but such a link is found, the error says so", async () => {
    mkdirSync("d");
    symlinkSync("nowhere", "d/lost");
    await expect(listFiles(["d/**/*.txt"])).rejects.toThrow(
      "files: nothing matches d/**/*.txt, and 1 links on the way are broken",
    );
  });

  test("of several hard links, the first name in order is used; reports are in order too", async () => {
    // In UTF-8 the fullwidth tilde is before the letter, in UTF-16 after it.
    const name = fc.constantFrom("a", "b", "b.txt", "b-", "\uff5e", "𝒜");
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("/"));
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(path, path), { minLength: 1, maxLength: 12 }), async (list) => {
        const root = `h${round++}`;
        for (const [path, other] of list)
          make(root, [
            ["file", path, ""],
            ["hard", other, path],
          ]);
        const all = readdirSync(root, { recursive: true, encoding: "utf8" })
          .map((path) => `${root}/${path}`)
          .filter((path) => statSync(path).isFile())
          .sort();
        const byNumber = new Map<number, string>();
        for (const path of all) if (!byNumber.has(statSync(path).ino)) byNumber.set(statSync(path).ino, path);
        expect(await listFiles([root])).toEqual([...byNumber.values()]);
        // Reported folder by folder.
        const told: string[] = [];
        const passOver = (_: string, names: ReadonlySet<string>) => names;
        const onLeftOut = (path: string) => told.push(path);
        await expect(listFiles([root], { passOver, onLeftOut })).rejects.toThrow(/written by a run/);
        const folders = new Set(told.map(dirname));
        for (const folder of folders) {
          const own = all.filter((path) => dirname(path) === folder);
          expect(told.filter((path) => dirname(path) === folder)).toEqual(own);
        }
        expect(told.length).toBe(all.length);
      }),
      { numRuns: 40 },
    );
  });

  /** Disks that identify files in other ways, simulated by changing what the system reports. */
  const disks: [string, (links: bigint, ino: bigint) => [links: bigint, ino: bigint], number][] = [
    ["numbers of 64 bits", (links, ino) => [links, ino], 2],
    ["no numbers", () => [2n, 0n], 4],
    ["one number for all, and no hard links", () => [1n, 7n], 4],
  ];
  test.each(disks)("files are distinguished where there are %s", async (_, change, expected) => {
    for (const name of ["d/a", "e/b"]) put(name);
    linkSync("d/a", "d/c");
    linkSync("e/b", "e/d");
    const { stat } = fs;
    // Different numbers that are equal as doubles, in place of those of this disk.
    const large = new Map<bigint, bigint>();
    const largeOf = (ino: bigint): bigint => {
      const found = large.get(ino) ?? (1n << 60n) | BigInt(large.size);
      large.set(ino, found);
      return found;
    };
    fs.stat = (async (path: string, options?: { bigint?: boolean }) => {
      const info = await stat(path, { bigint: true });
      const own = largeOf(info.ino);
      const [nlink, ino] = info.isFile() ? change(info.nlink, own) : [info.nlink, own];
      const whole = options?.bigint === true;
      const found = whole
        ? { nlink, ino, dev: info.dev }
        : { nlink: Number(nlink), ino: Number(ino), dev: 1 };
      return Object.assign(Object.create(info) as typeof info, found, {
        isFile: () => info.isFile(),
        isDirectory: () => info.isDirectory(),
      });
    }) as typeof fs.stat;
    syncBuiltinESMExports();
    try {
      expect(await listFiles(["."])).toHaveLength(expected);
    } finally {
      fs.stat = stat;
      syncBuiltinESMExports();
    }
  });

  test("changes during the search are reported", async () => {
    for (const name of ["d/a", "d/b", "d/gone/c", "d/other/c"]) put(name);
    const told: string[][] = [];
    const options: ListOptions = {
      passOver(at) {
        if (at === "d") {
          execFileSync("rm", ["-r", "d/b", "d/gone", "d/other"]);
          symlinkSync("nowhere", "d/gone");
          symlinkSync("other", "d/other");
        }
        return new Set();
      },
      skipUnreadable: true,
      onLeftOut: (...args) => told.push(args),
    };
    expect(await listFiles(["d"], options)).toEqual(["d/a"]);
    expect(told).toEqual([
      ["d/b", "unreadable", "it was deleted in the meantime"],
      ["d/gone", "unreadable", "it is a link to nowhere, which does not exist"],
      ["d/other", "unreadable", "it is a link to other, which leads back to itself"],
    ]);
    put("d/more/c");
    const away = (at: string): ReadonlySet<string> => {
      if (at === "d") execFileSync("rm", ["-r", "d/more"]);
      return new Set();
    };
    await expect(listFiles(["d/m*/*"], { passOver: away })).rejects.toThrow(
      "d/more cannot be read: it does not exist",
    );
    put("d/more/c");
    const replaced = (at: string): ReadonlySet<string> => {
      if (at === "d") {
        execFileSync("rm", ["-r", "d/more"]);
        put("d/more");
      }
      return new Set();
    };
    await expect(listFiles(["d/m*/*"], { passOver: replaced })).rejects.toThrow(
      /d\/more cannot be read: .*ENOTDIR/,
    );
  });

  test("each is reported with the reason", async () => {
    for (const name of ["d/a.txt", "d/target.txt", "d/mine/b.txt"]) put(name);
    symlinkSync("nowhere", "d/lost.txt");
    symlinkSync("round.txt", "d/round.txt");
    symlinkSync("nowhere", "d/folder");
    const told: string[][] = [];
    await listFiles(["d/**/*.txt"], {
      exclude: new Set(["d/target.txt"]),
      passOver: (_, names) => new Set(names.has("mine") ? ["mine"] : []),
      skipUnreadable: true,
      onLeftOut: (...args) => told.push(args),
    });
    expect(told).toEqual([
      ["d/folder", "link", "it is a link to nowhere, which does not exist"],
      ["d/lost.txt", "unreadable", "it is a link to nowhere, which does not exist"],
      ["d/round.txt", "unreadable", "it is a link to round.txt, which leads back to itself"],
      ["d/mine/b.txt", "passed over", "a run wrote it"],
      ["d/target.txt", "excluded", "it belongs to the target"],
    ]);
    // A pattern that cannot match them reports none of them.
    told.length = 0;
    await listFiles(["d/a*"], { onLeftOut: (...args) => told.push(args) });
    expect(told).toEqual([]);
  });

  test("paths that the system refuses are reported, in a readable form", async () => {
    symlinkSync("round", "round");
    await expect(listFiles(["round"])).rejects.toThrow(
      "files: round: it is a link to round, which leads back to itself",
    );
    const long = "x".repeat(5000);
    await expect(listFiles([long])).rejects.toThrow(
      `files: ${"x".repeat(100)}…${"x".repeat(60)}: its path is longer than the system allows (5000 characters)`,
    );
    const middling = Array.from({ length: 201 }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");
    await expect(listFiles([middling.slice(1)])).rejects.toThrow(`files: no such file: ${middling.slice(1)}`);
    const cut = `files: no such file: ${middling.slice(0, 100)}…${middling.slice(-60)}`;
    await expect(listFiles([middling])).rejects.toThrow(new RegExp(`^${cut}$`));
  });

  // Refused here, since the superuser may read anything.
  test.each(["EACCES", "EPERM"])("folders that may not be read are reported (%s)", async (code) => {
    put("d/a.txt");
    put("d/closed/b.txt");
    const { readdir, stat } = fs;
    const refusing =
      (call: (...args: never[]) => unknown, closed: RegExp): unknown =>
      async (path: string, ...rest: never[]) => {
        if (closed.test(path)) throw Object.assign(new Error(`${code}: refused`), { code });
        return call(path as never, ...rest);
      };
    fs.readdir = refusing(readdir, /d\/closed$/) as typeof readdir;
    fs.stat = refusing(stat, /d\/closed\/./) as typeof stat;
    syncBuiltinESMExports();
    try {
      const told: string[][] = [];
      const options: ListOptions = { skipUnreadable: true, onLeftOut: (...args) => told.push(args) };
      expect(await listFiles(["d"], options)).toEqual(["d/a.txt"]);
      expect(told).toEqual([["d/closed", "unreadable", "it may not be read (permission denied)"]]);
      // Nothing in it can match.
      expect(await listFiles(["d/*"])).toEqual(["d/a.txt"]);
      await expect(listFiles(["d/clos?d/*"], options)).rejects.toThrow(
        "files: none of d/clos?d/* can be read",
      );
      await expect(listFiles(["d/closed/b.txt"])).rejects.toThrow(
        "files: d/closed/b.txt: it may not be read (permission denied)",
      );
    } finally {
      Object.assign(fs, { readdir, stat });
      syncBuiltinESMExports();
    }
  });

  test("files that may not be read are reported as folders are; one that is named stops the search", async () => {
    put("d/a.txt");
    put("d/deep/closed.txt");
    const { access } = fs;
    fs.access = (async (path: string, mode?: number) => {
      if (path.endsWith("closed.txt")) throw Object.assign(new Error("refused"), { code: "EACCES" });
      return access(path, mode);
    }) as typeof access;
    syncBuiltinESMExports();
    try {
      const told: string[][] = [];
      const options: ListOptions = { skipUnreadable: true, onLeftOut: (...args) => told.push(args) };
      expect(await listFiles(["d"], options)).toEqual(["d/a.txt"]);
      expect(told).toEqual([["d/deep/closed.txt", "unreadable", "it may not be read (permission denied)"]]);
      await expect(listFiles(["d"], { what: 'domain "x"' })).rejects.toThrow(
        'domain "x": d/deep/closed.txt cannot be read: it may not be read (permission denied); fix it, or skip it with --skip-bad-lines',
      );
      await expect(listFiles(["d/deep/closed.txt"], { ...options, what: "target" })).rejects.toThrow(
        "target: d/deep/closed.txt: it may not be read (permission denied); give access to it, or leave it out",
      );
    } finally {
      Object.assign(fs, { access });
      syncBuiltinESMExports();
    }
  });

  test("files that are passed over are reported one by one, even if a pattern begins inside them; a path that is named is read", async () => {
    for (const path of ["d/a.txt", "d/mine/b.txt", "d/mine/deep/c.txt", "d/e/mine/f.txt"]) put(path);
    const told: string[] = [];
    const options = {
      passOver: (at: string, names: ReadonlySet<string>) =>
        new Set(posix.basename(at) === "d" && names.has("mine") ? ["mine"] : []),
      onLeftOut: (path: string, why: LeftOut) => told.push(`${why} ${path}`),
    };
    expect(await listFiles(["d", "d/**/*.txt"], options)).toEqual(["d/a.txt", "d/e/mine/f.txt"]);
    expect(told.sort()).toEqual(["passed over d/mine/b.txt", "passed over d/mine/deep/c.txt"]);
    await expect(listFiles(["d/mine/*"], options)).rejects.toThrow(
      /^files: the only file of d\/mine\/\* was written by a run; to use one as text, name it by its own path/,
    );
    await expect(listFiles(["d/mine/deep"], options)).rejects.toThrow(/was written by a run/);
    expect(await listFiles(["d/mine/b.txt"], options)).toEqual(["d/mine/b.txt"]);
  });
});
