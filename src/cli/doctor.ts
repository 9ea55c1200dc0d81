/** `gradmix doctor`: what this machine can do. */
import { availableParallelism, cpus, freemem, totalmem } from "node:os";

interface Output {
  write(text: string): unknown;
}

/** Prints the report; gives the exit code. */
export async function doctor(output: Output): Promise<number> {
  const lines: [string, string][] = [
    ["node", `${process.version} ${process.platform} ${process.arch}`],
    ["cpu", `${cpus()[0]?.model.trim() ?? "unknown"}, ${availableParallelism()} cores for this process`],
    ["memory", `${gib(totalmem())}, ${gib(freemem())} free`],
  ];
  for (const [name, value] of lines) output.write(`${name.padEnd(10)} ${value}\n`);
  return Promise.resolve(0);
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
