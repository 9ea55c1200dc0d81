/**
 * Tests that are written in Python: one vitest test for each function `test_…` of a module in this folder. All tests of a module run in one process,
 * because Python, and PyTorch even more, take long to start. GRADMIX_PYTHON names the Python that runs them; the default is `python3`.
 */
import { execFile, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, beforeEach, expect, test } from "vitest";

const python = process.env["GRADMIX_PYTHON"] ?? "python3";

/** Returns the reason why the module's tests cannot run here, or null. `packages` are the packages that they import. */
function missing(packages: readonly string[]): string | null {
  if (process.platform === "win32") return "they fork processes";
  const code = `import sys, importlib.util as u
print(*(n for n in sys.argv[1:] if u.find_spec(n) is None)) if sys.version_info >= (3, 9) else sys.exit("Python 3.9 or later is needed")`;
  const { error, status, stdout, stderr } = spawnSync(python, ["-c", code, ...packages], {
    encoding: "utf8",
  });
  const wrong = error
    ? `${python} does not run (${error.message})`
    : status === 0
      ? null
      : `${python}: ${stderr.trim()}`;
  // A Python that was named explicitly must work.
  if (wrong !== null && process.env["GRADMIX_PYTHON"] !== undefined) throw new Error(wrong);
  if (wrong !== null) return wrong;
  return stdout.trim() === ""
    ? null
    : `${python} has no ${stdout.trim()}; GRADMIX_PYTHON names a Python that has`;
}

export function checksOf(module: string, packages: readonly string[] = []): void {
  const source = readFileSync(join(import.meta.dirname, `${module}.py`), "utf8");
  const names = [...source.matchAll(/^def (test_\w+)/gm)].map(([, name = ""]) => name);
  const reason = missing(packages);
  let found: Readonly<Record<string, string | null>> = {};
  beforeAll(async () => {
    if (reason !== null) return;
    const { stdout } = await promisify(execFile)(
      python,
      [join(import.meta.dirname, "run_checks.py"), module],
      {
        maxBuffer: 1 << 26,
        timeout: 140_000,
      },
    );
    found = JSON.parse(stdout) as typeof found;
  }, 150_000);
  beforeEach(({ skip }) => {
    if (reason !== null) skip(reason);
  });
  test.each(names)("%s", (name) => {
    expect(found).toHaveProperty(name);
    // Python's own message says how the test failed.
    expect(found[name] ?? "").toBe("");
  });
}
