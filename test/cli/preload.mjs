/**
 * Loaded into `gradmix` before it starts (--import), by tests that observe its system calls or make one of them fail.
 *
 * RECORD: a file that gets a line for each call that writes: [call, path, …].
 * FAIL: {"call", "path" (a regular expression), "nth", "code"}: the nth such call fails.
 * FLOOD: "stdout" or "stderr", which is full before the command writes there.
 * SIGNAL: {"call", "path", "nth", "signals"}: the nth such call sends signals to the process itself.
 * MAKE: {"call", "path", "nth", "file"}: the nth such call makes a file and its folder, as another process would.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { syncBuiltinESMExports } from "node:module";

const { appendFileSync, openSync, closeSync, mkdirSync } = fs;
const record = process.env["RECORD"];
const fail = JSON.parse(process.env["FAIL"] ?? "null");
const signal = JSON.parse(process.env["SIGNAL"] ?? "null");
const make = JSON.parse(process.env["MAKE"] ?? "null");
const paths = new Map();

function matches(rule, call, path) {
  if (rule === null || rule.call !== call || !new RegExp(rule.path).test(path)) return false;
  rule.seen = (rule.seen ?? 0) + 1;
  return rule.seen === rule.nth;
}

function note(call, path, ...more) {
  if (record !== undefined) appendFileSync(record, `${JSON.stringify([call, path, ...more])}\n`);
  if (matches(signal, call, path)) for (const name of signal.signals) process.kill(process.pid, name);
  if (matches(make, call, path)) {
    mkdirSync(dirname(make.file), { recursive: true });
    appendFileSync(make.file, "theirs");
  }
  if (matches(fail, call, path)) throw Object.assign(new Error(`${call} ${path}`), { code: fail.code });
}

fs.openSync = (path, flags, mode) => {
  const writes = flags !== undefined && flags !== "r";
  if (writes) note("open", String(path));
  const file = openSync(path, flags, mode);
  paths.set(file, String(path));
  return file;
};
fs.closeSync = (file) => {
  closeSync(file);
  paths.delete(file);
};
for (const call of ["writeSync", "fsyncSync", "ftruncateSync"]) {
  const original = fs[call];
  fs[call] = (file, ...rest) => {
    note(call.replace("Sync", ""), paths.get(file) ?? String(file));
    return original(file, ...rest);
  };
}
const { createReadStream } = fs;
fs.createReadStream = (path, ...rest) => {
  note("read", String(path));
  return createReadStream(path, ...rest);
};
for (const name of ["stdout", "stderr"]) {
  const stream = process[name];
  const write = stream.write.bind(stream);
  stream.write = (text, ...rest) => {
    note("write", name, String(text));
    return write(text, ...rest);
  };
  // More than any pipe holds, so that no room is left if nobody reads it.
  if (name === process.env["FLOOD"]) write(Buffer.alloc(1 << 19, "."));
}
for (const call of ["renameSync", "linkSync"]) {
  const original = fs[call];
  fs[call] = (from, to) => {
    note(call.replace("Sync", ""), String(to), String(from));
    return original(from, to);
  };
}
for (const call of ["mkdirSync", "rmSync"]) {
  const original = fs[call];
  fs[call] = (path, ...rest) => {
    note(call.replace("Sync", ""), String(path));
    return original(path, ...rest);
  };
}
syncBuiltinESMExports();
