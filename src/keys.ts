/** The names of an object's own members, with the type of its keys. The object must have no members that its type does not list. */
export function keysOf<T extends object>(of: T): (keyof T & string)[] {
  const names: (keyof T & string)[] = [];
  for (const name in of) if (Object.hasOwn(of, name)) names.push(name);
  return names;
}
