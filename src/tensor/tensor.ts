/**
 * `Tensor`: a contiguous row-major handle on backend memory, and the lifetimes of such handles.
 *
 * A tensor has one owner and any number of holders. Its owner is the innermost `scope`, which disposes it at its end unless the tensor is returned or
 * kept (then the caller owns it). Other holders (a tape, a sink) retain and release it. The memory is freed once owner and holders have released it.
 * Model code never frees memory by hand.
 *
 * A tensor that no scope owns (made outside every scope, returned from the outermost, or kept) must be disposed by its holder. If that is forgotten,
 * its memory is freed when the garbage collector finds that it has no handle left. This happens late, since the collector does not know the size, but
 * it does happen.
 */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { checkElements, flatten, type NestedNumbers, typedAs } from "./data.ts";
import { checkDType, type DataOf, type DType } from "./dtype.ts";
import { currentMemory, type Memory, type View } from "./memory.ts";
import { elements, heading } from "./print.ts";
import { checkShape, formatShape, type Shape, sizeOf } from "./shape.ts";

interface Storage {
  readonly memory: Memory;
  readonly buffer: number;
  handles: number;
  /** How often it was written to. */
  version: number;
  /** Whether it is registered in the net. */
  inSafetyNet: boolean;
}

/**
 * The safety net for tensors that no scope owns: it frees memory that no handle refers to any more. It registers storages, since registering every
 * handle would cost about a microsecond per tensor, and only the storages of tensors that left all scopes. A tensor inside a scope costs nothing.
 */
const safetyNet = new FinalizationRegistry<Pick<Storage, "memory" | "buffer">>(({ memory, buffer }) => {
  try {
    memory.free(buffer);
  } catch {
    // The backend was shut down, and its memory freed.
  }
});

function intoNet(storage: Storage): void {
  if (storage.inSafetyNet) return;
  storage.inSafetyNet = true;
  safetyNet.register(storage, { memory: storage.memory, buffer: storage.buffer }, storage);
}

function giveBack(storage: Storage): void {
  if (storage.inSafetyNet) safetyNet.unregister(storage);
  storage.memory.free(storage.buffer);
}

/**
 * The tensors that a scope owns, in the order in which they were added: a linked list through the tensors themselves, since a set would cost more
 * than a small op.
 */
interface Owned {
  readonly outer: Owned | null;
  first: Tensor | null;
  last: Tensor | null;
}

let tensorsMade = 0;

/** Whether a transformation follows a tensor. The layer of transformations says so, which is above this one. */
let isFollowed: (t: Tensor) => boolean = () => false;

/** @internal Called once, by the layer of transformations. */
export function askWhetherFollowed(ask: (t: Tensor) => boolean): void {
  isFollowed = ask;
}

/** The constructor, which is private: users call `empty`, `tensor`, `zeros` and the ops. */
let handleOn: <D extends DType>(storage: Storage, shape: Shape, dtype: DType, offset: number) => Tensor<D>;

/** @internal The serial number of the tensor that was made last; later ones have a higher number. */
export function lastSerial(): number {
  return tensorsMade;
}

/** A contiguous row-major array on a backend. `D` is the type of the elements, if it is known; `Tensor` alone stands for a tensor of any type. */
export class Tensor<D extends DType = DType> implements View {
  /**
   * Only exists in the type. `D` is in a parameter of a method, which TypeScript compares both ways: a `Tensor<"f32">` and a `Tensor` of any type are
   * assignable to each other, but a `Tensor<"i32">` is not assignable to a `Tensor<"f32">`.
   */
  declare readonly elementType?: { of(type: D): void }["of"];
  /** Extents of the axes. Only this tensor has this list; ops refuse a tensor whose list was changed so that it no longer fits the elements. */
  readonly shape: Shape;
  /** Element type. */
  readonly dtype: DType;
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Name for error messages and files; parameters have one. */
  name: string | undefined;
  readonly #storage: Storage;
  /** Number of holders, including the owner. */
  #count = 1;
  #owned = true;
  /** The scope that owns it, and its neighbours there. */
  #scope: Owned | null = null;
  #before: Tensor | null = null;
  #after: Tensor | null = null;
  /** @internal Counts up from tensor to tensor, including views: shows which of two was made first. */
  readonly serial: number = ++tensorsMade;
  #onRelease: (() => void)[] | null = null;

  private constructor(storage: Storage, shape: Shape, dtype: DType, offset: number) {
    this.#storage = storage;
    storage.handles++;
    // A copy, since a list can be changed. (A frozen one would be safer, but V8 takes ten times as long for `slice` and others of a frozen list.)
    this.shape = shape.slice();
    this.dtype = dtype;
    this.offset = offset;
    this.size = sizeOf(shape);
    this.#enter();
  }

  static {
    handleOn = <D extends DType>(storage: Storage, shape: Shape, dtype: DType, offset: number) =>
      new Tensor<D>(storage, shape, dtype, offset);
  }

  /** Gives ownership to the innermost scope or, if there is none, to the net. */
  #enter(): void {
    const scope = innermost;
    if (scope === null) {
      intoNet(this.#storage);
      return;
    }
    this.#scope = scope;
    this.#before = scope.last;
    if (scope.last === null) scope.first = this;
    else scope.last.#after = this;
    scope.last = this;
  }

  #leave(): void {
    const scope = this.#scope;
    if (scope === null) return;
    const before = this.#before;
    const after = this.#after;
    if (before === null) scope.first = after;
    else before.#after = after;
    if (after === null) scope.last = before;
    else after.#before = before;
    this.#scope = this.#before = this.#after = null;
  }

  /** "Tensor", by which checks of options tell a tensor from an object with options. */
  get [Symbol.toStringTag](): string {
    return "Tensor";
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** Memory of the backend that holds the elements. */
  get memory(): Memory {
    return this.#storage.memory;
  }

  get buffer(): number {
    if (this.#count === 0)
      throw new GradmixError(
        "disposed",
        `tensor ${this.name ?? ""}${formatShape(this.shape)} was used after it was freed: dispose() frees a tensor, and so does the end of its scope, unless you return it from the scope or keep() it`,
      );
    return this.#storage.buffer;
  }

  /** Whether the tensor has been freed. Ops refuse a freed tensor. */
  get disposed(): boolean {
    return this.#count === 0;
  }

  /** @internal How often the memory has been written to, through this or any other handle on it. */
  get version(): number {
    return this.#storage.version;
  }

  /** @internal Must be called by everyone who writes to the memory. */
  written(): void {
    this.#storage.version++;
  }

  /** True if there is one holder and no other view of the memory, so that this holder may overwrite it. */
  get unshared(): boolean {
    return this.#count === 1 && this.#storage.handles === 1;
  }

  /** @internal True if no other handle refers to the memory. */
  get alone(): boolean {
    return this.#storage.handles === 1;
  }

  /** Adds a holder; each holder must call `release` once. */
  retain(): this {
    if (this.#count === 0) void this.buffer;
    this.#count++;
    return this;
  }

  /** Removes a holder that has called `retain`. */
  release(): void {
    if (this.#count === 0 || --this.#count > 0) return;
    const storage = this.#storage;
    if (--storage.handles === 0) giveBack(storage);
    const hooks = this.#onRelease;
    this.#onRelease = null;
    if (hooks !== null) for (const hook of hooks) hook();
  }

  /** Releases the tensor on behalf of its owner. A second call does nothing. */
  dispose(): void {
    if (!this.#owned) return;
    this.#owned = false;
    this.#leave();
    this.release();
  }

  /** @internal Takes it out of the scope that owns it, if there is one; without another owner, the net then owns it. */
  keep(): void {
    if (this.#scope === null) return;
    this.#leave();
    intoNet(this.#storage);
  }

  /** @internal Moves it from the given scope to the innermost one, if it is there. */
  pass(from: Owned): void {
    if (this.#scope !== from) return;
    this.#leave();
    this.#enter();
  }

  /** @internal Gives a tensor without an owner to the innermost scope. */
  adopt(): this {
    if (this.#owned) return this;
    this.retain();
    this.#owned = true;
    this.#enter();
    return this;
  }

  /** @internal Calls `hook` when the last holder releases it. */
  onRelease(hook: () => void): void {
    (this.#onRelease ??= []).push(hook);
  }

  /** Frees the tensor at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * Another handle on the same memory: a contiguous part, or the same elements with another shape. It is not an op, and derivatives do not pass through
   * it. Throws `autograd` for a tensor that a transformation follows; use `reshape` or `slice` there.
   */
  view(shape: Shape, offset = 0): Tensor<D> {
    void this.buffer;
    if (isFollowed(this))
      throw new GradmixError(
        "autograd",
        `view: derivatives do not pass through a view of ${this.name ?? "a tensor"} ${formatShape(this.shape)}; use reshape or slice, or view stopGradient of it if it is meant as a constant`,
      );
    return this.part(shape, offset);
  }

  /** @internal `view` without the check, for ops and for code that no transformation sees. */
  part(shape: Shape, offset = 0): Tensor<D> {
    void this.buffer;
    checkShape(shape, "view");
    if (!(Number.isSafeInteger(offset) && offset >= 0 && offset + sizeOf(shape) <= this.size))
      throw new GradmixError(
        "shape",
        `view: ${formatShape(shape)} from element ${show(offset)} does not fit into ${formatShape(this.shape)}`,
      );
    return new Tensor(this.#storage, shape, this.dtype, this.offset + offset);
  }

  /**
   * Overwrites the elements; other handles on the same memory (of reshape, or of a slice of whole rows) see the change. `data` must have exactly
   * `size` numbers that the type can hold. A transformation cannot be played back once a tensor that it needs was overwritten (`autograd`).
   */
  write(data: ArrayLike<number>): void {
    checkElements("write", data, this.dtype, this.shape);
    if (data.length !== this.size)
      throw new GradmixError(
        "shape",
        `write: ${data.length} values for a tensor of shape ${formatShape(this.shape)}`,
      );
    this.memory.write(this.buffer, this.offset, data);
    this.written();
  }

  /** Resolves to a copy of the elements, row-major: a `Float32Array` for f32, an `Int32Array` for i32. */
  data<T extends DType>(this: Tensor<T>): Promise<DataOf[T]> {
    // The buffer was allocated for elements of this type. (The reference backend in doubles, which tests use, gives a Float64Array.)
    return this.memory.read(this.buffer, this.offset, this.size) as Promise<DataOf[T]>;
  }

  /** Resolves to the only element of a tensor of size 1. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new GradmixError(
        "shape",
        `item: the tensor has shape ${formatShape(this.shape)}, not one element`,
      );
    const data: ArrayLike<number> = await this.data();
    return data[0]!;
  }

  /**
   * Name, type, shape and elements, as `console.log` prints them: f32 with seven digits, and large tensors shortened with "…". If reading the
   * elements requires waiting (on a GPU), it says how to get them; if they cannot be read, it says why. It never throws.
   */
  toString(): string {
    const { memory } = this;
    if (this.disposed) return `${heading(this)} (disposed)`;
    const { readNow } = memory;
    if (readNow === undefined)
      return `${heading(this)} (on ${memory.name}: \`await tensor.data()\` reads it)`;
    const read = (buffer: number, at: number): number => readNow.call(memory, buffer, at, 1)[0]!;
    try {
      const lines = elements((position) => read(this.buffer, this.offset + position), this.shape, this.dtype);
      return `${heading(this)}${lines.includes("\n") ? "\n" : " "}${lines}`;
    } catch (error) {
      return `${heading(this)} (cannot be read: ${error instanceof Error ? error.message : String(error)})`;
    }
  }
}

// The symbol that `console.log` of Node (and Deno, and Bun) looks up. It is from the global registry, so that nothing of Node is imported.
Object.defineProperty(Tensor.prototype, Symbol.for("nodejs.util.inspect.custom"), {
  value(this: Tensor, depth: number): string {
    return depth < 0 ? `[${heading(this)}]` : this.toString();
  },
});

export function isTensor(value: unknown): value is Tensor {
  return value instanceof Tensor;
}

/** Whether two tensors have an element in common. */
export function sharesMemory(a: Tensor, b: Tensor): boolean {
  return (
    a.memory === b.memory &&
    a.buffer === b.buffer &&
    a.offset < b.offset + b.size &&
    b.offset < a.offset + a.size
  );
}

/** Allocates a tensor with undefined contents. Default type f32. */
export function empty(shape: Shape): Tensor<"f32">;
export function empty<D extends DType>(shape: Shape, dtype: D, memory?: Memory): Tensor<D>;
export function empty(shape: Shape, dtype: DType = "f32", memory: Memory = currentMemory()): Tensor {
  checkShape(shape, "empty");
  checkDType(dtype, "empty");
  const buffer = memory.alloc(sizeOf(shape), dtype);
  return handleOn({ memory, buffer, handles: 0, version: 0, inSafetyNet: false }, shape, dtype, 0);
}

/**
 * Makes a tensor of `data`, row-major: a number, a list or a typed array of numbers, or lists of those to any depth. `shape` defaults to that of the
 * lists. `dtype` defaults to the type of the numbers: i32 for an `Int32Array`, else f32. Numbers are rounded to f32; i32 accepts 32-bit integers.
 * Throws `shape`, with the index, for lists of different lengths and for numbers that the type cannot hold, if the counts differ, and if a
 * `Float32Array` or an `Int32Array` should become the other type.
 */
export function tensor(data: Int32Array | readonly Int32Array[], shape?: Shape): Tensor<"i32">;
export function tensor<D extends DType = "f32">(data: NestedNumbers, shape?: Shape, dtype?: D): Tensor<D>;
export function tensor(data: NestedNumbers, shape?: Shape, dtype?: DType): Tensor {
  const { values, shape: own } = flatten("tensor", data);
  const target = shape ?? own;
  checkShape(target, "tensor");
  if (dtype !== undefined) checkDType(dtype, "tensor");
  const type = typedAs("tensor", data, dtype) ?? dtype ?? "f32";
  if (sizeOf(target) !== values.length)
    throw new GradmixError(
      "shape",
      `tensor: ${values.length} values do not fill the shape ${formatShape(target)}`,
    );
  checkElements("tensor", values, type, own);
  const out = empty(target, type);
  out.memory.write(out.buffer, out.offset, values);
  return out;
}

let innermost: Owned | null = null;

/** Takes a tensor out of its scope: the caller owns it and disposes it. */
export function keep<T extends Tensor>(t: T): T {
  const given: unknown = t;
  if (!isTensor(given)) throw new GradmixError("shape", `keep: ${show(given)} is not a tensor`);
  t.keep();
  return t;
}

/**
 * Runs `fn` and releases every tensor made in it, except those in its result (tensors, or arrays, maps, sets and plain objects of them), which pass to
 * the enclosing scope.
 *
 * A scope is synchronous: while a promise waits, other code runs and would make its tensors in this scope. So make all tensors inside the scope,
 * return the one to read, and await and dispose it outside: `const loss = scope(() => …); const value = await loss.item(); loss.dispose();`. For a
 * function that returns a promise it throws `autograd`; what the function made before its first await is freed, and what it makes later belongs to no
 * scope. It also throws `autograd` for a generator or another iterator, which makes its values after the scope has ended.
 */
export function scope<T>(fn: () => T): T {
  if (typeof fn !== "function")
    throw new GradmixError("config", `scope: ${show(fn)} does not fit; it must be a function`);
  const mine: Owned = { outer: innermost, first: null, last: null };
  innermost = mine;
  let result: T;
  try {
    result = fn();
  } catch (error) {
    closeScope(mine, undefined);
    throw error;
  }
  if (isThenable(result)) {
    closeScope(mine, undefined);
    // The function continues without its tensors, so it fails; nobody waits for it, so its error is ignored.
    result.then(undefined, () => {});
    throw new GradmixError(
      "autograd",
      "scope: the function returned a promise; a scope is synchronous: return the tensor from it, and await its data outside",
    );
  }
  if (isIterator(result)) {
    closeScope(mine, undefined);
    throw new GradmixError(
      "autograd",
      "scope: the function returned an iterator, such as a generator, whose values are made after the scope has ended; return an array of them",
    );
  }
  closeScope(mine, result);
  return result;
}

function isIterator(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    (Symbol.iterator in value || Symbol.asyncIterator in value) &&
    "next" in value &&
    typeof value.next === "function"
  );
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

function closeScope(mine: Owned, result: unknown): void {
  innermost = mine.outer;
  try {
    passTensors(result, mine);
  } finally {
    for (let t = mine.first; t !== null; t = mine.first) t.dispose();
  }
}

/** Passes the tensors in a value (a tensor, or arrays, maps, sets and plain objects of them) from a scope that ends to the one around it. */
function passTensors(value: unknown, from: Owned): void {
  if (typeof value !== "object" || value === null) return;
  if (isTensor(value)) {
    value.pass(from);
    return;
  }
  // A list of what is still to be visited, and not a recursion: values can be nested to any depth, and can contain themselves.
  const visited = new Set<object>();
  const waiting: unknown[] = [value];
  while (waiting.length > 0) {
    const next = waiting.pop();
    if (typeof next !== "object" || next === null || visited.has(next)) continue;
    visited.add(next);
    if (isTensor(next)) next.pass(from);
    else for (const item of itemsOf(next)) waiting.push(item);
  }
}

/** The values in an array, a map, a set or a plain object; none for anything else. */
function itemsOf(value: object): Iterable<unknown> {
  if (Array.isArray(value)) return value as readonly unknown[];
  if (value instanceof Map || value instanceof Set) return value.values();
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? Object.values<unknown>({ ...value }) : [];
}

/** Resolves to a copy of the elements of a tensor in f32, also on the reference backend in doubles. */
export async function float32Of(tensor: Tensor<"f32">): Promise<Float32Array<ArrayBuffer>> {
  const values: unknown = await tensor.data();
  return values instanceof Float32Array
    ? (values as Float32Array<ArrayBuffer>)
    : Float32Array.from(values as Float64Array);
}
