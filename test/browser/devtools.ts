/** Headless Chromium over its DevTools protocol: opens files, runs expressions in them, and takes pictures. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { endChromium, startChromium } from "./chromium.ts";

type Parameters = Readonly<Record<string, unknown>>;

export interface Look {
  readonly width: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

export interface Tab {
  /** Errors that the page logs or throws. */
  readonly errors: readonly string[];
  /** Opens an address and waits until it has loaded. */
  open(url: string, look: Look): Promise<void>;
  /** Returns the value of an expression (awaited), as JSON. */
  evaluate<T>(expression: string): Promise<T>;
  /** Returns a PNG of the whole page, or of its top `height` pixels. */
  picture(height?: number): Promise<Buffer>;
  send(method: string, parameters?: Parameters): Promise<Record<string, unknown>>;
}

/** Calls `use` with a tab of a new browser, which ends afterwards. */
export async function withTab<T>(use: (tab: Tab) => Promise<T>): Promise<T> {
  const profile = mkdtempSync(join(tmpdir(), "gradmix-chromium-"));
  const browser = startChromium("about:blank", profile, true);
  try {
    const [, , , input, output] = browser.stdio as unknown as (Readable | Writable)[];
    const protocol = speak(input as Writable, output as Readable);
    browser.once("exit", () => protocol.end("Chromium ended"));
    const { targetId } = await protocol.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await protocol.send("Target.attachToTarget", { targetId, flatten: true });
    return await use(await tabOf(protocol, String(sessionId)));
  } finally {
    await endChromium(browser);
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

interface Protocol {
  send(method: string, parameters?: Parameters, session?: string): Promise<Record<string, unknown>>;
  on(listener: (method: string, parameters: Record<string, unknown>) => void): void;
  end(reason: string): void;
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

/** Messages are JSON, each ended by a zero byte. */
function speak(input: Writable, output: Readable): Protocol {
  const waiting = new Map<
    number,
    { resolve(value: Record<string, unknown>): void; reject(error: Error): void }
  >();
  const listeners: ((method: string, parameters: Record<string, unknown>) => void)[] = [];
  let next = 1;
  let rest = "";
  output.setEncoding("utf8");
  output.on("data", (text: string) => {
    const parts = (rest + text).split("\0");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const { id, method, params, result, error } = JSON.parse(part) as Message;
      const asked = waiting.get(id ?? -1);
      if (id !== undefined) waiting.delete(id);
      if (error !== undefined) asked?.reject(new Error(error.message));
      else asked?.resolve(result ?? {});
      if (method !== undefined) for (const listener of listeners) listener(method, params ?? {});
    }
  });
  return {
    async send(method, params = {}, sessionId) {
      const id = next++;
      input.write(
        `${JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) })}\0`,
      );
      return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
    },
    on: (listener) => void listeners.push(listener),
    end(reason) {
      for (const { reject } of waiting.values()) reject(new Error(reason));
      waiting.clear();
    },
  };
}

async function tabOf(protocol: Protocol, session: string): Promise<Tab> {
  const send: Tab["send"] = (method, parameters) => protocol.send(method, parameters, session);
  const errors: string[] = [];
  let loaded: () => void = () => {};
  protocol.on((method, parameters) => {
    if (method === "Page.loadEventFired") loaded();
    if (method === "Runtime.exceptionThrown")
      errors.push(
        JSON.stringify((parameters["exceptionDetails"] as { exception?: unknown }).exception ?? parameters),
      );
    if (method === "Log.entryAdded") {
      const { level, text } = parameters["entry"] as { level: string; text: string };
      if (level === "error") errors.push(text);
    }
  });
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`);
  const evaluate: Tab["evaluate"] = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = (await send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })) as {
      result: { value?: unknown };
      exceptionDetails?: { exception?: { description?: string }; text: string };
    };
    if (exceptionDetails !== undefined)
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value as T;
  };
  // Observers of sizes are called before a frame is drawn.
  const drawn = (): Promise<unknown> =>
    evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(null))))");
  return {
    errors,
    evaluate,
    send,
    async open(url, { width, height = 900, scheme = "light" }) {
      await send("Emulation.setDeviceMetricsOverride", {
        width,
        height,
        deviceScaleFactor: 1,
        mobile: false,
      });
      await send("Emulation.setEmulatedMedia", {
        features: [{ name: "prefers-color-scheme", value: scheme }],
      });
      const ready = new Promise<void>((resolve) => (loaded = resolve));
      await send("Page.navigate", { url });
      await ready;
      await drawn();
    },
    async picture(height) {
      const whole = await evaluate<{ width: number; height: number }>(
        "({ width: innerWidth, height: document.documentElement.scrollHeight })",
      );
      const { data } = await send("Page.captureScreenshot", {
        captureBeyondViewport: true,
        clip: {
          x: 0,
          y: 0,
          width: whole.width,
          height: Math.min(height ?? Infinity, whole.height),
          scale: 1,
        },
      });
      return Buffer.from(String(data), "base64");
    },
  };
}
