/** The names of an object's own members, of which its type says that there are no others. */
export function keysOf<T extends object>(of: T): (keyof T & string)[] {
  const names: (keyof T & string)[] = [];
  for (const name in of) if (Object.hasOwn(of, name)) names.push(name);
  return names;
}
