/** Which files patterns mean: against a matcher of whole paths, and on trees with links, sockets and paths that are too long, of which nothing may get lost. */
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
import { tmpdir } from "node:os";
import { dirname, join, posix, resolve } from "node:path";
import fc from "fast-check";
import { type LeftOut, listFiles } from "gradmix/data";
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

  const names = fc.constantFrom("a", "c", "d", "*", "**", "*.txt", "?", "{a,b.txt}", "{c,d}", "[cd]", "c*", "{c/d,d}", "{d/{d,e},c}", ".h", ".*", "*.d", "+(c|d)", "\\{c,d\\}", "\\[c\\]", "!*.txt", "{c/b.txt,b.txt}", "{d}", "{c/d}", "\\{c/d,d\\}", "{c/d,*"); // prettier-ignore
  test("mean the files whose whole paths they match", async () => {
    const patterns = fc
      .array(names, { minLength: 1, maxLength: 4 })
      .map((parts) => parts.join("/"))
      // A pattern that is the name of something means that.
      .filter((pattern) => picomatch.scan(pattern).isGlob && !existsSync(pattern));
    await fc.assert(
      fc.asyncProperty(
        patterns,
        fc.constantFrom("", "./", ".//"),
        fc.boolean(),
        async (pattern, start, twice) => {
          // Names before the first star say nothing of hidden files.
          const names = pattern.split("/");
          const starred = names.slice(names.findIndex((name) => picomatch.scan(name).isGlob));
          const dot = starred.some((name) => name.startsWith("."));
          // At the end "**" is what is below a folder; for the matcher it may be nothing.
          const matches = picomatch.makeRe(pattern.replace(/(^|\/)\*\*$/, "$1**/*"), { dot, nonegate: true });
          const expected = tree.filter((path) => matches.test(path)).sort();
          // "./" at the start and a "/" too many change nothing.
          const given = start + (twice ? pattern.replaceAll("/", "//") : pattern);
          const found = await listFiles([given]).catch((error: Error) => error.message);
          expect(found).toEqual(expected.length > 0 ? expected : `files: nothing matches ${given}`);
        },
      ),
      { numRuns: 600 },
    );
  });

  test("below a hidden folder mean no hidden files", async () => {
    put(".h/.secret");
    for (const base of [".h", resolve(".h")]) {
      expect(await listFiles([`${base}/**`])).toEqual([`${base}/c`]);
      expect(await listFiles([`${base}/.*`])).toEqual([`${base}/.secret`]);
    }
  });

  test("do not look where they cannot match", async () => {
    symlinkSync("nowhere", "c/d/lost");
    symlinkSync("nowhere", "lost.md");
    expect(await listFiles(["*/b.txt"])).toEqual(["[c]/b.txt", "a.d/b.txt", "c/b.txt", "{c,d}/b.txt"]);
    expect(await listFiles(["c/*.txt"])).toEqual(["c/b.txt"]);
    expect(await listFiles(["!(c|d|?c?)/*.txt"])).toEqual(["a.d/b.txt", "{c,d}/b.txt"]);
    await expect(listFiles(["c/**"])).rejects.toThrow(
      "files: c/d/lost cannot be read: it is a link to nowhere, which is not there; mend it, or leave it out with --skip-bad-lines",
    );
    await expect(listFiles(["+(c/d|a)/b.txt"])).rejects.toThrow(/a "\/" inside of \(…\) cannot be matched/);
  });
});

/** An entry of a random tree: what it is, where, and what a link points to. */
type Entry = [kind: "file" | "link" | "hard" | "fifo" | "deep", path: string, to: string];

describe("nothing gets lost", () => {
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

  test("every path below a folder is read, under one of its names, or told", async () => {
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
        // And an error without `skipUnreadable`, exactly when something was told.
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

  test("a link to nothing whose name does not match may have been a folder: it is told, and no error", async () => {
    put("d/a.txt");
    symlinkSync("nowhere", "d/lost");
    const told: string[] = [];
    const files = await listFiles(["d/**/*.txt"], { onLeftOut: (path, why) => told.push(`${why} ${path}`) });
    expect([files, told]).toEqual([["d/a.txt"], ["link d/lost"]]);
  });

  test("what is passed over is told, file by file, also where a pattern begins inside of it; a path of its own is read", async () => {
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
      /^files: all 1 files of d\/mine\/\* were written by a run; name one by its own path/,
    );
    await expect(listFiles(["d/mine/deep"], options)).rejects.toThrow(/were written by a run/);
    expect(await listFiles(["d/mine/b.txt"], options)).toEqual(["d/mine/b.txt"]);
  });
});
