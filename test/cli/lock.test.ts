/** The lock of a run folder: one process at a time, with processes that are dead, on another machine, or racing. */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import * as nodeFs from "node:fs";
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import type { WriteFs } from "#dist/node/files.js";
import { lockFolder, removeLockRemains, takeLock } from "#dist/cli/lock.js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A process that has ended. */
const dead = Number(spawnSync(process.execPath, ["-p", "process.pid"], { encoding: "utf8" }).stdout);
const held = (): string => readFileSync(join(folder, "lock"), "utf8");

test("the lock of a new folder takes the folders that it made with it, unless something was written there", () => {
  const [parent, inner] = [join(folder, "a"), join(folder, "a", "b")];
  lockFolder(inner).release();
  expect(readdirSync(folder)).toEqual([]);
  const used = lockFolder(inner);
  expect(() => lockFolder(inner)).toThrow(/is being written by process/);
  writeFileSync(join(parent, "mine"), "");
  used.release();
  expect(readdirSync(parent)).toEqual(["mine"]);
  // A folder that was there before stays.
  lockFolder(parent).release();
  expect(readdirSync(parent)).toEqual(["mine"]);
  rmSync(join(parent, "mine"));
  lockFolder(parent).release();
  expect(readdirSync(folder)).toEqual(["a"]);
});

/** File systems with links, and without them. */
const systems: [string, WriteFs][] = [
  ["links", nodeFs],
  [
    "no links",
    {
      ...nodeFs,
      linkSync: () => {
        throw Object.assign(new Error("link"), { code: "EPERM" });
      },
    },
  ],
];

describe.each(systems)("with %s", (_, fs) => {
  test("can be taken once, and is gone after its release", () => {
    const lock = takeLock(folder, fs);
    expect(held()).toMatch(new RegExp(`^${process.pid} `));
    expect(() => takeLock(folder, fs)).toThrow(`is being written by process ${process.pid}; wait for it`);
    expect(readdirSync(folder)).toEqual(["lock"]);
    lock.release();
    expect(readdirSync(folder)).toEqual([]);
    takeLock(folder, fs).release();
  });

  test("is taken over from a process that has ended, whose number was reused, or that ran before a restart of the system", () => {
    const lock = takeLock(folder, fs);
    const [pid, host, start, boot, machine] = held().trim().split(" ");
    lock.release();
    const stale = [
      `${dead} ${host} ${start} ${boot} ${machine} x\n`,
      `${pid} ${host} 1 ${boot} ${machine} x\n`,
      `${pid} ${host} ${start} 000000000000 ${machine} x\n`,
      // As written before the system's start and the machine were noted.
      `${dead} ${hostname()} 1\n`,
    ];
    // Not every system reports its start and those of its processes.
    for (const text of stale.filter((one) => start !== "-" || one.startsWith(String(dead)))) {
      writeFileSync(join(folder, "lock"), text);
      const taken = takeLock(folder, fs);
      expect(held()).not.toBe(text);
      expect(readdirSync(folder)).toEqual(["lock"]);
      taken.release();
    }
  });

  test("is respected if another machine holds it, even one with the same name", () => {
    const lock = takeLock(folder, fs);
    const [, host, start, boot, machine] = held().trim().split(" ");
    lock.release();
    const foreign = [`${dead} not-${host} ${start} ${boot} ${machine} x\n`];
    if (machine !== "-") foreign.push(`${dead} ${host} ${start} 000000000000 000000000000 x\n`);
    for (const text of foreign) {
      writeFileSync(join(folder, "lock"), text);
      expect(() => takeLock(folder, fs)).toThrow(
        /is being written by process \d+ on .*; if that has ended, delete .*lock$/,
      );
      expect(held()).toBe(text);
    }
  });

  test("counts for a while as held by a process that is writing it, if it is incomplete", () => {
    for (const text of ["", "12", `${dead} ${hostname()} 1`]) {
      const path = join(folder, "lock");
      writeFileSync(path, text);
      expect(() => takeLock(folder, fs)).toThrow(/another process is about to write there/);
      utimesSync(path, new Date(), new Date(Date.now() - 60_000));
      takeLock(folder, fs).release();
    }
  });

  test("leaves no file if the disk is full", () => {
    const full: WriteFs = {
      ...fs,
      writeSync: () => {
        throw Object.assign(new Error("write"), { code: "ENOSPC" });
      },
    };
    expect(() => takeLock(folder, full)).toThrow(/lock: cannot be written \(the disk is full\)/);
    writeFileSync(join(folder, "lock"), `${dead} ${hostname()} 1\n`);
    expect(() => takeLock(folder, full)).toThrow(/the disk is full/);
    expect(readdirSync(folder)).toEqual(["lock"]);
  });
});

test("a lock that another process has taken over is not released", () => {
  const lock = takeLock(folder);
  writeFileSync(join(folder, "lock"), "another\n");
  lock.release();
  expect(held()).toBe("another\n");
});

test("the remains of processes that were killed midway are removed, those of running processes are kept", () => {
  const lock = takeLock(folder);
  const claim = "lock.0123456789abcdef";
  const [ended, running] = [`lock.new-${randomUUID()}`, `lock.new-${randomUUID()}`];
  for (const name of [ended, claim, `${claim}.${"0".repeat(16)}`])
    writeFileSync(join(folder, name), `${dead} ${hostname()} 1\n`);
  writeFileSync(join(folder, running), held());
  // Files of the user.
  for (const name of ["lock.txt", "lock.new-a"]) writeFileSync(join(folder, name), "");
  for (const name of ["lock.txt", "lock.new-a"]) utimesSync(join(folder, name), 1e9, 1e9);
  removeLockRemains(folder);
  expect(readdirSync(folder).sort()).toEqual(["lock", "lock.txt", "lock.new-a", running].sort());
  lock.release();
});

test("a claim is taken over too, if its process was killed while taking over the lock", () => {
  const stale = `${dead} ${hostname()} 1\n`;
  writeFileSync(join(folder, "lock"), stale);
  // Killed before it could replace the lock.
  const killed: WriteFs = {
    ...nodeFs,
    renameSync: () => {
      throw Object.assign(new Error("killed"), { code: "EIO" });
    },
    rmSync: (path, options) => {
      if (!/lock\.[0-9a-f]{16}$/.test(path)) nodeFs.rmSync(path, options);
    },
  };
  expect(() => takeLock(folder, killed)).toThrow("lock: cannot be written");
  const claim = readdirSync(folder).find((name) => /^lock\.[0-9a-f]{16}$/.test(name)) ?? "";
  // This process is running, so no other process may take over now …
  expect(() => takeLock(folder)).toThrow(/is being written/);
  // … but once it has ended, any process may.
  writeFileSync(join(folder, claim), stale);
  takeLock(folder).release();
  expect(readdirSync(folder)).toEqual([]);
});

test("if many processes compete for a stale lock, exactly one gets it", async () => {
  const children: ChildProcess[] = [];
  const answers = (ask: object): Promise<string[]> =>
    Promise.all(
      children.map(async (child) => {
        const answer = once(child, "message");
        child.send(ask);
        return String((await answer)[0]);
      }),
    );
  try {
    for (let i = 0; i < 6; i++) children.push(fork(join(import.meta.dirname, "lock-racer.mjs")));
    await Promise.all(children.map((child) => once(child, "message")));
    for (let round = 0; round < 60; round++) {
      writeFileSync(join(folder, "lock"), `${dead} ${hostname()} ${round}\n`);
      const told = await answers({ folder, at: Date.now() + 8 });
      expect(told.sort()).toEqual(["refused", "refused", "refused", "refused", "refused", "taken"]);
      await answers({});
      expect(readdirSync(folder)).toEqual([]);
    }
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
});
