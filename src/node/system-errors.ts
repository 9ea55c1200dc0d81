/** Messages for errors of the operating system. */
import { errorCode } from "../errors.ts";

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EISDIR: "it is a folder",
  ENOTDIR: "a part of the path is not a folder",
  EROFS: "the file system is read-only",
  ENAMETOOLONG: "the name is too long",
  ELOOP: "its symbolic links lead in a circle",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file is too large",
  EMFILE: "too many open files",
  EIO: "input/output error",
  EAGAIN: "nobody reads it",
  ENOMEM: "no memory is left",
};

/** The message for a file-system error. */
export function reason(error: unknown): string {
  const code = errorCode(error);
  return code === "" ? String(error) : reasonOf(code);
}

/** The message for an error code of the system. */
export function reasonOf(code: string): string {
  return reasons[code] ?? code;
}
