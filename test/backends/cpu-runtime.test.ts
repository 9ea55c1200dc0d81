/** The runtime of the CPU backend: the allocator, worker threads that start and die, failures in them, and the end of the process. */
import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createAllocator } from "#dist/backends/cpu/allocator.js";
import { createCpuBackend, startMachine } from "#dist/backends/cpu/index.js";
import { controlBytes, runTasks, setShares, Word } from "#dist/backends/cpu/protocol.js";
import { errorOf } from "../errors.ts";

const root = new URL("../../", import.meta.url);

/** Runs a module in a Node of its own; its exit status is null when it had to be killed. */
function child(source: string, seconds = 15): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", source], {
    cwd: root,
    encoding: "utf8",
    timeout: seconds * 1000,
  });
  return { status, stdout, stderr };
}

const start = `
  import { createCpuBackend } from "./dist/backends/cpu/index.js";
  const backend = await createCpuBackend({ threads: 3 });
  const n = 1 << 20;
  const view = (buffer) => ({ buffer, offset: 0, shape: [n], dtype: "f32" });
  const a = backend.alloc(n, "f32");
  backend.run("fill", { value: 2 }, {}, { out: view(a) });
  console.log((await backend.read(a, n - 1, 1))[0]);
`;

describe("the tasks of a launch", () => {
  const counts = { tasks: fc.nat(40), threads: fc.integer({ min: 1, max: 9 }) };

  it("are each run once, by their own thread or, if it does not come, by another, which first runs its own share", () => {
    fc.assert(
      fc.property(
        fc.record({ ...counts, order: fc.shuffledSubarray([...Array(9).keys()], { minLength: 1 }) }),
        ({ tasks, threads, order }) => {
          const control = new Int32Array(controlBytes(threads) / 4);
          const runs: number[] = [];
          // A second thread that comes while the first works on a task takes all remaining tasks.
          const [now = 0, ...later] = order.map((thread) => thread % threads);
          const work = (thread: number, coming: readonly number[]): void =>
            runTasks(
              control,
              (_, task) => {
                runs.push(task);
                const [next, ...others] = coming;
                if (next !== undefined && runs.length === 2) work(next, others);
              },
              ...([0, tasks, thread, threads] as const),
            );
          for (const _ of [1, 2]) {
            runs.length = 0;
            setShares(control, threads, "whole");
            work(now, later);
            expect(runs.toSorted((a, b) => a - b)).toEqual([...Array(tasks).keys()]);
            if (tasks >= threads) expect(Math.abs(runs[0] - (now * tasks) / threads)).toBeLessThan(1);
          }
          setShares(control, threads, "empty");
          runs.length = 0;
          work(now, later);
          expect(runs).toEqual([]);
        },
      ),
    );
  });
});

describe("allocator", () => {
  it("returns blocks that are aligned, disjoint and within the limit, whatever the order of releases", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.record({ size: fc.nat(5000) }), fc.record({ free: fc.nat(30) })), {
          maxLength: 120,
        }),
        (actions) => {
          const limit = 60_000;
          let grown = 0;
          const allocator = createAllocator(1000, limit, (end) => (grown = Math.max(grown, end)));
          const live: { at: number; size: number }[] = [];
          for (const action of actions) {
            if ("free" in action) {
              const [gone] = live.splice(action.free % Math.max(1, live.length), 1);
              if (gone !== undefined) allocator.release(gone.at, gone.size);
              continue;
            }
            const at = allocator.allocate(action.size);
            if (at < 0) continue;
            expect(at % 128).toBe(0);
            expect(at).toBeGreaterThanOrEqual(1000);
            expect(at + action.size).toBeLessThanOrEqual(Math.min(limit, grown));
            for (const other of live)
              expect(at + action.size <= other.at || other.at + Math.max(1, other.size) <= at).toBe(true);
            live.push({ at, size: action.size });
          }
          for (const { at, size } of live) allocator.release(at, size);
          expect(allocator.live).toBe(0);
          // All is one block again: the largest request fits.
          expect(allocator.allocate(limit - 1024 - 128)).toBeGreaterThan(0);
        },
      ),
    );
  });

  it("gives equal sequences of requests equal addresses, so repeating a step takes no more memory", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ size: fc.nat(4000), keep: fc.nat(5) }), { minLength: 1, maxLength: 40 }),
        (step) => {
          let end = 0;
          const allocator = createAllocator(0, 1 << 30, (to) => (end = Math.max(end, to)));
          const run = (): number[] => {
            const held: { at: number; size: number }[] = [];
            const seen = step.map(({ size, keep }) => {
              const at = allocator.allocate(size);
              held.push({ at, size });
              const oldest = held.length > keep ? held.shift() : undefined;
              if (oldest !== undefined) allocator.release(oldest.at, oldest.size);
              return at;
            });
            for (const { at, size } of held) allocator.release(at, size);
            return seen;
          };
          // The heap reaches its size in the first rounds.
          for (let round = 0; round < 4; round++) run();
          const first = run();
          const used = end;
          expect(run()).toEqual(first);
          expect(end).toBe(used);
        },
      ),
    );
  });
});

describe("threads", () => {
  // A page's main thread may not sleep.
  describe.each([true, false])("whose caller may sleep: %s", (maySleep) => {
    it("share the tasks of a launch, and run each task once", async () => {
      const { machine } = await startMachine({ threads: 4 });
      machine.maySleep = maySleep;
      const count = 1_000_000;
      const at = machine.workspace(count * 4);
      for (let value = 1; value < 50; value++) {
        machine.launch({
          kernel: "fill",
          tasks: 977,
          slots: { out: at, elements: count, elementsPerTask: 1024, bits: value },
          work: 1e9,
        });
        const words = machine.words(at, count);
        expect(words.every((word) => word === value)).toBe(true);
      }
      machine.stop();
    });

    it("keep launches apart, even if the next launch comes before they have woken up", async () => {
      const { machine } = await startMachine({ threads: 4 });
      machine.maySleep = maySleep;
      const size = 64;
      const places = [1, 2, 3].map(() => machine.workspace(size * 4));
      const values = [0, 0, 0];
      for (let i = 1; i <= 20_000; i++) {
        const at = i % places.length;
        values[at] = i;
        machine.launch({
          kernel: "fill",
          tasks: 16,
          slots: { out: places[at], elements: size, elementsPerTask: 4, bits: i },
          work: 1e9,
        });
        for (const [place, value] of values.entries())
          if (!machine.words(places[place], size).every((word) => i < 3 || word === value))
            expect.fail(`launch ${i} is not whole, or has changed what another wrote`);
      }
      machine.stop();
    });

    it("that are lost during a launch cause an error rather than a hang, also in every later launch", async () => {
      const { machine } = await startMachine({ threads: 3 });
      Object.assign(machine, { maySleep, patience: 200 });
      // The state that a thread leaves if it ends while it works on a task.
      Atomics.add(machine.words(machine.controlAt, 64), Word.busy, 1);
      const at = machine.workspace(4096);
      const launch = (): void =>
        machine.launch({
          kernel: "fill",
          tasks: 8,
          slots: { out: at, elements: 1024, elementsPerTask: 128, bits: 5 },
          work: 1e9,
        });
      for (const _ of [1, 2])
        expect(errorOf(launch)).toMatchObject({
          code: "backend",
          message: expect.stringContaining("a worker thread was lost in kernel fill (it stopped answering)"),
        });
      machine.stop();
    });
  });

  it("work even where sleeping is forbidden", () => {
    // A worker of Node.js may sleep, so the test forbids it.
    const { status, stdout, stderr } = child(`
      ${start.replace(/import .*/, "$&\n  Atomics.wait = () => { throw new TypeError('forbidden'); };")}
      for (let i = 0; i < 500; i++) backend.run("fill", { value: i }, {}, { out: view(a) });
      console.log((await backend.read(a, 0, 1))[0]);
    `);
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "2\n499\n", stderr: "" });
  });

  it.each([0, 1, 7, 63])(
    "report a trap in task %i as an error that names the kernel, and continue to work",
    async (task) => {
      const { machine } = await startMachine({ threads: 3 });
      for (let round = 0; round < 20; round++)
        expect(() =>
          machine.launch({ kernel: "trap", tasks: 64, slots: { failing: task }, work: 1e9 }),
        ).toThrow(/cpu: kernel trap failed on thread \d/);
      const at = machine.workspace(4096);
      machine.launch({
        kernel: "fill",
        tasks: 8,
        slots: { out: at, elements: 1024, elementsPerTask: 128, bits: 5 },
        work: 1e9,
      });
      expect(machine.words(at, 1024).every((word) => word === 5)).toBe(true);
      machine.stop();
    },
  );

  it("that have died cause an error rather than a hang, also in every later launch", async () => {
    const { machine } = await startMachine({ threads: 3 });
    await Promise.all(machine.workers.map((worker) => worker.stop()));
    const at = machine.workspace(4096);
    const launch = (): void =>
      machine.launch({
        kernel: "fill",
        tasks: 8,
        slots: { out: at, elements: 1024, elementsPerTask: 128, bits: 5 },
        work: 1e9,
      });
    for (const _ of [1, 2])
      expect(errorOf(launch)).toMatchObject({
        code: "backend",
        message: expect.stringContaining("a worker thread was lost in kernel fill (ended with code 1)"),
      });
  });

  it("can be chosen, as can the SIMD level, and wrong choices are refused", async () => {
    for (const simd of ["relaxed", "plain"] as const) {
      const backend = await createCpuBackend({ threads: 2, simd });
      expect(backend.capabilities).toMatchObject({ threads: 2, simd });
      await backend.dispose();
      expect(() => backend.alloc(4, "f32")).toThrow(/was disposed/);
    }
    for (const threads of [0, -1, 1.5, 65, NaN])
      await expect(createCpuBackend({ threads })).rejects.toThrow(
        /threads: .* is not an integer from 1 to 64/,
      );
    await expect(createCpuBackend({ memoryLimit: 1000 })).rejects.toThrow(/memoryLimit: 1000 bytes/);
  });
});

describe("memory", () => {
  it("is refused beyond its limit with the numbers, and can be used afterwards", async () => {
    const backend = await createCpuBackend({ threads: 2, memoryLimit: 16 << 20 });
    const first = backend.alloc(1 << 20, "f32");
    const before = backend.liveBytes;
    expect(() => backend.alloc(4 << 20, "f32")).toThrow(
      /16777216 bytes were asked for with \d+ of 16777216 bytes in use/,
    );
    expect(backend.liveBytes).toBe(before);
    backend.free(first);
    const second = backend.alloc(3 << 20, "f32");
    backend.free(second);
    await backend.dispose();
  });

  it("can also run out inside a kernel that needs a workspace, and none of it is lost", async () => {
    const backend = await createCpuBackend({ threads: 2, memoryLimit: 8 << 20 });
    const view = (buffer: number, rows: number, cols: number) =>
      ({ buffer, offset: 0, shape: [rows, cols], dtype: "f32" }) as const;
    const n = 640;
    const [a, b, c] = [0, 0, 0].map(() => backend.alloc(n * n, "f32"));
    const params = { m: n, n, k: n, transA: false, transB: true, batch: 1, strideA: 0, strideB: 0, strideC: 0, alpha: 1, accumulate: false, activation: "none" } as const; // prettier-ignore
    const multiply = (): void =>
      backend.run(
        "gemm",
        params,
        { a: view(a ?? 0, n, n), b: view(b ?? 0, n, n) },
        { c: view(c ?? 0, n, n) },
      );
    const d = backend.alloc(n * n, "f32");
    expect(multiply).toThrow(/bytes were asked for/);
    backend.free(d);
    multiply();
    multiply();
    await backend.dispose();
  });
});

describe.runIf(process.platform === "linux")("a limited address space (ulimit -v)", () => {
  /** Address space of a Node process that has done nothing yet, in KiB. */
  const bare = Number(
    /^VmSize:\s+(\d+)/m.exec(
      spawnSync(process.execPath, ["-p", 'fs.readFileSync("/proc/self/status", "utf8")'], {
        encoding: "utf8",
      }).stdout,
    )?.[1],
  );
  const limited = (gib: number, flags: string[], source: string): { status: number | null; out: string } => {
    const { status, stdout, stderr } = spawnSync(
      "bash",
      [
        "-c",
        `ulimit -v ${Math.round(bare + gib * 2 ** 20)}; exec "$0" "$@"`,
        process.execPath,
        ...flags,
        "--input-type=module",
        "-e",
        source,
      ],
      { cwd: root, encoding: "utf8", timeout: 30_000 },
    );
    return { status, out: stdout + stderr };
  };
  const within = (gib: number, options: string, flags: string[]): { status: number | null; out: string } =>
    limited(
      gib,
      flags,
      `
      import { createCpuBackend } from "./dist/backends/cpu/index.js";
      try {
        const backend = await createCpuBackend(${options});
        const a = backend.alloc(1 << 18, "f32");
        backend.run("fill", { value: 2 }, {}, { out: { buffer: a, offset: 0, shape: [1 << 18], dtype: "f32" } });
        const { threads, memoryLimit } = backend.capabilities;
        console.log((await backend.read(a, 7, 1))[0], threads, memoryLimit / 2 ** 30);
        for (;;) backend.alloc(1 << 22, "f32");
      } catch (error) {
        console.log(error.code + ": " + error.message);
      }`,
    );
  /** Does V8 insist on the guard regions of a memory? Newer versions do without them where there is no room. */
  const guarded =
    limited(4, [], "new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })").status !== 0;

  it.each([1, 4, 8])(
    "of %i GiB: it runs, or is refused in one line that names the remedy, whatever the memory limit",
    (gib) => {
      for (const options of ["{}", "{ memoryLimit: 64 << 20, threads: 1 }"]) {
        const { status, out } = within(gib, options, []);
        expect(out).toMatch(
          guarded
            ? /^memory: cpu: WebAssembly takes 10 GiB of address space, and its limit \(ulimit -v\) leaves \d\.\d GiB; raise it [^\n]*disable-wasm-trap-handler[^\n]*\n$/
            : /^2 \d+ [\d.]+\nmemory: [^\n]*\n$/,
        );
        expect(status).toBe(0);
      }
    },
  );

  it.runIf(guarded)(
    "that has room for the memory but not for workers: one thread runs, and a request for more is refused",
    () => {
      const alone = within(10.7, "{ memoryLimit: 64 << 20 }", []);
      expect(alone.out).toMatch(/^2 1 0\.0625\nmemory: .* of 67108864 bytes in use; .*\n$/);
      expect(within(10.7, "{ memoryLimit: 64 << 20, threads: 4 }", []).out).toMatch(
        /^memory: cpu: 4 threads need 3\.\d GiB more of address space, .*; raise it, or take 1 thread\n$/,
      );
      expect(within(12.2, "{ memoryLimit: 64 << 20, threads: 2 }", []).out).toMatch(/^2 2 0\.0625\nmemory: /);
    },
  );

  // Bounds are then checked by the code, and as much is set aside as the memory may grow to.
  it.each([0.9, 2.5, 6])(
    "of %d GiB, without V8's guard regions: the memory limit fits in it, and exceeding it is an error with the numbers",
    (gib) => {
      const { status, out } = within(gib, "{}", ["--disable-wasm-trap-handler"]);
      const [, limit = "", numbers = ""] = /^2 \d+ ([\d.]+)\n(memory: .*)\n$/.exec(out) ?? [];
      expect(Number(limit), out).toBeGreaterThan(0);
      expect(Number(limit)).toBeLessThanOrEqual(Math.min(4, gib));
      expect(numbers).toMatch(
        /bytes were asked for with \d+ of \d+ bytes in use|the system gave no memory beyond/,
      );
      expect(status).toBe(0);
    },
  );
});

describe("the process", () => {
  it("ends by itself with workers running", () => {
    expect(child(start)).toMatchObject({ status: 0, stdout: "2\n" });
  });

  it("ends when it throws, exits, or disposes first", () => {
    expect(child(`${start} throw new Error("planned");`)).toMatchObject({ status: 1, stdout: "2\n" });
    expect(child(`${start} process.exit(7);`)).toMatchObject({ status: 7, stdout: "2\n" });
    expect(child(`${start} await backend.dispose(); await backend.dispose();`)).toMatchObject({
      status: 0,
      stdout: "2\n",
    });
  });

  it("refuses a request for several threads if there is no SharedArrayBuffer", () => {
    const { stdout } = child(`
      import { createCpuBackend } from "./dist/backends/cpu/index.js";
      delete globalThis.SharedArrayBuffer;
      await createCpuBackend({ threads: 2 }).catch(({ code, message }) => console.log(code, message));
      console.log((await createCpuBackend({ threads: 1 })).capabilities.threads);
    `);
    expect(stdout).toBe(
      "config threads: 2 are not possible: this process has no SharedArrayBuffer; leave threads out, or set it to 1\n1\n",
    );
  });

  it("works on one thread if there is no SharedArrayBuffer", () => {
    const { status, stdout, stderr } = child(
      `delete globalThis.SharedArrayBuffer;\n${start.replace("createCpuBackend({ threads: 3 })", "createCpuBackend()")}\n console.log(backend.capabilities.threads);`.replace(
        /(delete .*;)\n\s*(import .*;)/,
        "$2\n$1",
      ),
    );
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "2\n1\n", stderr: "" });
  });
});
