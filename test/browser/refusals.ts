/** Features that a browser lacks, or has only for isolated pages, are refused; and the GPU is checked before it is used. */
import { init, shutdown } from "gradmix";
import { listFiles, readDocuments } from "gradmix/data";
import { refusal, reporting } from "./page.ts";

await reporting(async () => {
  const documents = async (): Promise<void> => {
    for await (const { text } of readDocuments(["a.txt"])) throw new Error(`${text} was read`);
  };
  const lines: string[] = [];
  const backend = await init({ log: (line) => lines.push(line) });
  const chosen = backend.name;
  await shutdown();
  return {
    chosen,
    lines,
    listFiles: await refusal(listFiles(["*.txt"])),
    readDocuments: await refusal(documents()),
    threads: await refusal(init({ backend: "cpu", threads: 2 })),
    wide: await refusal(init({ backend: "cpu", vectorBits: 256 })),
    software: await refusal(init({ backend: "webgpu" })),
    urlsOfWebgpu: await refusal(init({ backend: "webgpu", urls: {} })),
    unknownUrl: await refusal(init({ urls: { kernels: "/a" } as object })),
    wrongUrl: await refusal(init({ urls: { plain: 5 } as object })),
  };
});
