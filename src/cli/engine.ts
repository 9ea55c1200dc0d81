/** The backend of a run: how it is chosen, what its numbers depend on, and how it differs for a resumed run. */
import type { Backend } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { init } from "../host-node.ts";
import type { RunChanges } from "../runs/lines.ts";
import type { RunConfig } from "./train-config.ts";
import { isObject } from "../json.ts";
import { flagOf } from "./values.ts";
import { version } from "./version.ts";

/** The options of the backend. */
export type EnginePlan = Pick<
  RunConfig,
  "backend" | "threads" | "simd" | "vectorBits" | "precision" | "deterministic" | "memoryLimit"
>;

/** Facts on which the numbers of a run depend, in addition to its configuration. */
export interface Engine {
  readonly backend: string;
  /** SIMD level of the cpu backend, or the name of the GPU. */
  readonly simd: string;
  readonly precision: string;
  /** Version of gradmix. */
  readonly version: string;
}

/** The engine as stored in a checkpoint. Older checkpoints contain only the backend. */
export function savedEngine(state: Readonly<Record<string, unknown>>): Partial<Engine> {
  const engine = state["engine"];
  const found: Record<string, unknown> = isObject(engine) ? engine : { backend: state["backend"] };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === "string"));
}

/** The parts that are known of both engines and differ. */
export function engineChanges(then: Partial<Engine>, now: Engine): RunChanges {
  return Object.fromEntries(
    Object.entries(now).flatMap(([name, value]: [string, string]) => {
      const from = then[name as keyof Engine];
      return from === undefined || from === value ? [] : [[name, { from, to: value }]];
    }),
  );
}

/** Starts the backend that the options name. A resumed run keeps its backend and SIMD level unless the options say otherwise. */
export async function startBackend(
  wanted: EnginePlan,
  then: Partial<Engine>,
  log: (line: string) => void,
): Promise<{ readonly backend: Backend; readonly engine: Engine }> {
  const kept = wanted.backend === "auto" && (then.backend === "cpu" || then.backend === "webgpu");
  const backend = kept ? then.backend : wanted.backend;
  const keptSimd =
    wanted.simd === "auto" && then.backend === "cpu" && backend === "cpu" && isSimd(then.simd)
      ? then.simd
      : null;
  const simd = keptSimd ?? wanted.simd;
  try {
    const started = await init({
      backend,
      log,
      ...(wanted.threads === null ? {} : { threads: wanted.threads }),
      ...(simd === "auto" ? {} : { simd }),
      vectorBits: wanted.vectorBits === "auto" ? "auto" : wanted.vectorBits === "256" ? 256 : 128,
      ...(wanted.precision === "f32" ? {} : { precision: wanted.precision }),
      ...(wanted.deterministic ? { deterministic: true } : {}),
      ...(wanted.memoryLimit === null ? {} : { memoryLimit: wanted.memoryLimit }),
    });
    return {
      backend: started,
      engine: {
        backend: started.name,
        simd: started.capabilities.simd,
        precision: wanted.precision,
        version: version(),
      },
    };
  } catch (thrown) {
    const error = withFlags(thrown);
    // Vectors that are missing are no reason to leave the backend.
    const chose = (kept || keptSimd !== null) && wanted.vectorBits !== "256";
    if (!chose || !(error instanceof GradmixError) || error.code !== "backend") throw error;
    throw new GradmixError(
      "backend",
      `${error.message}. The run began on ${then.backend ?? ""}${keptSimd === null ? "" : ` with ${keptSimd} SIMD`} and must continue with it, because others round differently; to change it, give ${keptSimd === null ? "--backend" : "--simd or --backend"}, and the metrics record the change`,
      { cause: error },
    );
  }
}

/** The same error with the advice of the library, `use vectorBits = 128`, as a flag: `use --vector-bits 128`. */
function withFlags(error: unknown): unknown {
  if (!(error instanceof GradmixError) || error.code !== "backend") return error;
  const message = error.message.replace(
    /use (\w+) = (\w+)/,
    (_, option: string, value: string) => `use ${flagOf(option)} ${value}`,
  );
  return new GradmixError(error.code, message, { cause: error });
}

const isSimd = (level: string | undefined): level is "relaxed" | "plain" =>
  level === "relaxed" || level === "plain";
